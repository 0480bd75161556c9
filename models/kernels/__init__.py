"""Loops that numba compiles: lanes, their products, the fold, attention and recurrences.

Nothing here imports torch. `uic.models.kernels.compiled` says where compiled code is kept, and what
names it.
"""
