"""Follows what is published: bundles, item tables, generations, item versions."""
