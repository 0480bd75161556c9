"""Settings of a site (`uic.yaml`) and the context that every command starts from."""
