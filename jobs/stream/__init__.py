"""The stream job: every event changes its user's memory (docs/concepts.md, "The stream job")."""
