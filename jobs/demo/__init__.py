"""The demo: stages, processes, report."""
