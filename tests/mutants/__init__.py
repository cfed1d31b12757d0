"""Planted bugs: the score of the simulation is how many of them it catches, and how soon."""
