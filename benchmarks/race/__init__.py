"""The race of `benchmarks/worth.py`: logs, states, one head for all, and the judge."""
