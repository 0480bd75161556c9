"""What is published of the log: a part goes in, a publication comes out, or one of these errors."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from uic.models.errors import BadInputError, UicError
from uic.pipelines.days import day_number, day_of_number
from uic.pipelines.log.epochs import Epoch
from uic.pipelines.log.event_log import LogFile


class DuplicateImportError(UicError):
    """The log already holds what is to be imported."""


class BackfillError(BadInputError):
    """Behaviours were to be imported behind a topic, whose own events are ordered before them."""


class LogWriteError(UicError):
    """The log could not be written: a full disk, no permission. Nothing was published."""


@dataclass(frozen=True)
class Span:
    """When the events of a part were.

    Attributes:
        what: behaviours, or impressions where a part has these alone.
        first_ms, last_ms: event times, milliseconds since 1970 UTC.
        rows_by_day: of the days that have any.
    """

    what: str
    first_ms: int
    last_ms: int
    rows_by_day: Mapping[date, int]

    @property
    def median_rows_a_day(self) -> float:
        """Of the days that have any."""
        return median(self.rows_by_day.values())

    @property
    def share_by_year(self) -> dict[int, float]:
        """The share of the rows in each year, 0 to 1."""
        rows: Counter[int] = Counter()
        for day, count in self.rows_by_day.items():
            rows[day.year] += count
        return {year: rows[year] / rows.total() for year in sorted(rows)}


@dataclass(frozen=True)
class Publication:
    """What was published; `overlap` is a sentence if an earlier epoch goes on into its days.

    `epoch` is None for impressions alone, which have no place in the order of behaviours. `span`
    is None of a part without events. `repeated` counts the rows that equal an earlier one in
    user, item, category, behaviour and time; they are kept. `shown` counts items of lists.
    """

    epoch: Epoch | None
    behaviors: int
    impressions: int
    users: int
    items: int
    days: int
    bytes: int
    manifest: Path
    overlap: str | None = None
    span: Span | None = None
    repeated: int = 0
    shown: int = 0


@dataclass(frozen=True)
class Part:
    """What the manifest says about a part of the log besides its files.

    Attributes:
        name: lower-case letters, digits, `-`, `_`; names the epoch of an import.
        sources: `name`, `bytes`, `sha256` of each input; an input is imported once.
        notes: what a reader has to know about the data, one sentence each.
        details: options of the run, JSON.
    """

    name: str
    sources: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def same_sources(
    manifests: Sequence[Mapping[str, Any]], sources: Sequence[Mapping[str, Any]]
) -> str | None:
    """The first published manifest's name that holds one of these sources (by sha256), or None."""
    sums = {source["sha256"] for source in sources}
    for manifest in manifests:
        if any(source["sha256"] in sums for source in manifest.get("sources", ())):
            number = manifest["epoch"]
            where = "impressions" if number is None else f"epoch {number}"
            return f"{where} ({manifest['name']})"
    return None


def overlap_notice(
    epoch: int, behavior_days: Sequence[int], earlier: Sequence[LogFile]
) -> str | None:
    """Whether an import begins before an earlier epoch ends, in a sentence; by days.

    Args:
        epoch: of the import.
        behavior_days: that it has, ascending (`uic.pipelines.days`).
        earlier: files of the log before it.
    """
    last = max(earlier, key=lambda file: file.dt, default=None)
    if last is None or not behavior_days or day_number(last.dt) < behavior_days[0]:
        return None
    return (
        f"epoch {epoch} begins on {day_of_number(behavior_days[0])}, epoch {last.epoch} "
        f"goes on to {last.dt}: positions order events by epoch first, so log time falls for "
        "a user who is in both, and samples refuse such a log; import the older data first"
    )


def refuse_backfill(held_back: str | None, epochs: Sequence[Epoch], root: Path) -> None:
    """Refuse behaviours of an import behind a topic's: a stream skips an earlier epoch's events.

    Args:
        held_back: the day that a replay has taken out of the log.
        epochs: of the log.
        root: of the log, for the message.

    Raises:
        BackfillError: a topic is registered, or days are held back.
    """
    if held_back is not None:
        msg = (
            f"{root}: {held_back} and later days are held back for a replay, and would "
            "come after what is imported now. Nothing was written; `uic replay undo` gives "
            "them back first"
        )
        raise BackfillError(msg)
    topic = next((epoch for epoch in epochs if epoch.kind == "topic"), None)
    if topic is not None:
        msg = (
            f"{root}: epoch {topic.number} is topic {topic.name}; behaviours imported "
            "now would come after everything that is still to stream, and the stream would "
            "skip it for their users. Nothing was written. Impressions alone go in beside it "
            "(`uic import table … --impressions`); for older behaviours make the log anew in "
            "another --workspace: older data first, then the topic"
        )
        raise BackfillError(msg)
