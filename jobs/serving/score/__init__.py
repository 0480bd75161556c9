"""Scores from what was read: memories, sequences with images, pre-rank."""
