"""`uic.Workspace`: what the commands do, as methods that return typed results and print nothing."""
