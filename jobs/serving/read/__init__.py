"""What a request reads: the store, behind a circuit breaker, counted."""
