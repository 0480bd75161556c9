"""Exercises that break things on purpose and compare the result with the log, byte for byte."""
