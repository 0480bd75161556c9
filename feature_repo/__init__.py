"""Feast: entities, feature views, the packed online store and generations of memories."""
