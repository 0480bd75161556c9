"""Requests in batches: the engine, and users for people to look at."""
