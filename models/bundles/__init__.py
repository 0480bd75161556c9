"""Published models: files, the shelf of versions, and warm starts from one."""
