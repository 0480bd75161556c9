"""A record as a list of parts: what a user's events leave, and the features read off it."""
