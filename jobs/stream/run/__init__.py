"""A stream as a running thing: plan, attempts, supervision, upgrade."""
