"""Whether what is served is what the log says: memories against a fold of their own."""
