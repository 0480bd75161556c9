"""Training over ranks: sharded tables, the router between them, AMS."""
