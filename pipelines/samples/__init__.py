"""Grouped training samples from the event log: a vectorised core, and a Beam pipeline around it.

`plan` says what a run makes, `build` makes the groups of one bucket of users, `shuffle` carries
tables through Beam, `transform` is the pipeline without IO, `files` and `run` are its edges.
"""
