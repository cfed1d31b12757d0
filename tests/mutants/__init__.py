"""Planted bugs: each breaks one rule of the kernel, and the simulation must find every one of them."""
