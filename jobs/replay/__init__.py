"""A past day lived again: its events into the log, its impressions ranked, in order of time."""
