"""The HTTP service: routes, limits, answers, feature log."""
