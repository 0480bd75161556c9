"""An open-loop load generator for the ranking service."""
