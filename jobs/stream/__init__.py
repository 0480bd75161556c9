"""The stream job: every behaviour event changes its user's memory (DESIGN, "The stream job")."""
