"""The event log: schemas, files, positions and epochs, reading and writing."""
