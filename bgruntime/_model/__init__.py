"""The nouns: names, states, promises and numbers. No loop, no clock, no I/O, the standard library only."""
