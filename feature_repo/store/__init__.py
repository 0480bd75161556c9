"""Redis without Feast: layout, packed reads and writes, generations, live pointer."""
