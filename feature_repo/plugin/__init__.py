"""Feast's side: the online store class, its registry, and the repository opened by `uic`."""
