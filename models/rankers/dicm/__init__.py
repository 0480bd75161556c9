"""DICM: behaviour images in ranking, and the two-tower pre-rank."""
