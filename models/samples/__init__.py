"""Grouped samples: their schema, reader, vocabulary, and batches for a model."""
