"""Markers: how far each partition of the log is folded into a generation.

One hash a generation: field `epoch:partition`, value `offset@log_time`. The log time is the
largest of the partition up to that offset, in milliseconds since 1970 UTC: a broker's clock may
step back, so the log time of an event is the largest so far, and a stream that starts again needs
to know it. Markers of older versions have no log time.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

NO_OFFSET: Final = -1
NO_TIME: Final = -1


class Marker(NamedTuple):
    """The last folded event of a partition, and the largest log time up to it."""

    offset: int
    log_time_ms: int = NO_TIME


def marker_text(offset: int, log_time_ms: int) -> str:
    """A marker as the store holds it."""
    return str(offset) if log_time_ms == NO_TIME else f"{offset}@{log_time_ms}"


def markers_of(fields: Mapping[bytes, bytes]) -> dict[int, dict[int, Marker]]:
    """Epoch -> partition -> marker, of the hash that holds them."""
    marks: dict[int, dict[int, Marker]] = {}
    for name, text in sorted(fields.items()):
        epoch, partition = (int(part) for part in name.split(b":"))
        offset, _, log_time = text.partition(b"@")
        marks.setdefault(epoch, {})[partition] = Marker(int(offset), int(log_time or NO_TIME))
    return marks
