"""Why an answer is not what it could be. The words are part of the API and of the metrics."""

from enum import StrEnum


class DegradedReason(StrEnum):
    """One reason for `degraded`."""

    UNKNOWN_USER = "unknown_user"  # no memory: scored with the initial memory
    UNKNOWN_ITEM = "unknown_item"  # not in the item table: its category is not known
    STORE_UNAVAILABLE = "store_unavailable"  # it did not answer, or not in time
    CIRCUIT_OPEN = "circuit_open"  # it failed a moment ago, and was not asked
    STORE_EMPTY = "store_empty"  # no generation is live: wiped, or never loaded
    FOREIGN_VALUE = "foreign_value"  # what is stored for the user is not a memory
    UNKNOWN_BUNDLE = "unknown_bundle"  # no scorer here understands the memory's bundle
    PARTS_MISSING = "parts_missing"  # no record holds the user's exact parts: those of a new user
    RECORDS_BEHIND = "records_behind"  # the stream lags by more than `freshness` allows
    NO_ITEM_VERSION = "no_item_version"  # no item version of the bundle: items have no image
    ITEM_VECTORS_UNAVAILABLE = "item_vectors_unavailable"  # the store did not answer for new items
    FOREIGN_ITEM_VECTOR = "foreign_item_vector"  # an item's vector is of another bundle: not used
    UNKNOWN_TASK = "unknown_task"  # the bundle has no head for `order_by`: ordered by the click
    NOT_FINITE = "not_finite"  # the memory gave scores that are no numbers: scored without it
    INTERNAL_ERROR = "internal_error"  # an error that no code expected; the log has it
    STALE_MEMORY = "stale_memory"  # its last event is older than the limit
    FEATURE_MISSING = "feature_missing"  # a feature of the bundle has no value: its default
    FEATURE_INVALID = "feature_invalid"  # one has a value that cannot be used: its default
    FEATURE_UNSEEN = "feature_unseen"  # one has a category that its `values` do not name
