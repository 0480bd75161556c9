"""Scores from what was read: item vectors, readouts, sequences, pre-rank."""
