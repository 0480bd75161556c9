"""What runs: the `uic` command line, the stream job, the ranking service."""
