"""Bytes of one user: the record, the position it stands at, and the ring of recent events."""
