"""Checks a person asks for: gates, audit, doctor, one user."""
