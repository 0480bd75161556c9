"""Why an answer is not what it could be. The words are part of the API and of the metrics."""

from enum import StrEnum


class Reason(StrEnum):
    """One reason for `degraded`."""

    UNKNOWN_USER = "unknown_user"  # no memory: scored with the memory of somebody new
    UNKNOWN_ITEM = "unknown_item"  # not in the item table: its category is not known
    STORE_UNAVAILABLE = "store_unavailable"  # it did not answer, or not in time
    CIRCUIT_OPEN = "circuit_open"  # it failed a moment ago, and was not asked
    STORE_EMPTY = "store_empty"  # no generation is live: wiped, or never loaded
    FOREIGN_VALUE = "foreign_value"  # what is stored for the user is not a memory
    UNKNOWN_BUNDLE = "unknown_bundle"  # no readout here understands the memory's bundle
    STALE_MEMORY = "stale_memory"  # its last event is older than the limit
