"""Memories from the event log: warm-up, the daily snapshot, and the rebuild after an incident."""
