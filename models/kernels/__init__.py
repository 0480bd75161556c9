"""Loops that numba compiles: lanes, their products, the fold, attention and recurrences."""
