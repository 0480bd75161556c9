"""MIMN's memory: the network of one step, its state, and the fold over many users."""
