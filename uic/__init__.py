"""User interest center: one small record per user, from the behaviour log to ranking."""

from importlib.metadata import version as _version

__version__ = _version("user-interest-center")
