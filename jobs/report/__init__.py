"""The report: one page that works without a network, and the same numbers as `demo.json`."""
