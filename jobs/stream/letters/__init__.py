"""Dead letters and the archive of raw events."""
