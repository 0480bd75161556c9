"""Features beside ids: what they are (`features.yaml`), their raw values, and their numbers."""
