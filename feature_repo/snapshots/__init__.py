"""Published files that a store is loaded from: memories and item vectors."""
