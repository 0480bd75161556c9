"""The micro-batch function: parse, read, fold, write, move the marker."""
