"""Topics and event files: brokers, producers, positions."""
