"""Mechanisms that would make sense in a program without jobs. They import the standard library only."""
