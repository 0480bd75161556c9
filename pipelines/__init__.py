"""Beam and Arrow: event log, importers, simulator, samples, memories, quality gates."""
