"""Bridges to other people's tools, each in a module of its own that imports its tool."""
