"""One module a group of `uic` commands; each has `register(app)`, which `uic.jobs.cli` calls."""
