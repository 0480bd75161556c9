"""The three ways to begin a training (DICM, section 7.2 and table 5). Light on purpose."""

from enum import StrEnum


class WarmUp(StrEnum):
    """What is taken from an older model: nothing, all but the ID embeddings, or everything."""

    NONE = "none"
    PARTIAL = "partial"
    FULL = "full"
