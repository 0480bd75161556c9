"""`uic state check`: the parts of a file held against the log, on some of its users."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uic.models.errors import BadInputError
from uic.models.features.event_columns import EventColumn
from uic.models.hashing import stable_hash
from uic.models.state.definition import StateDefinition
from uic.models.state.shown import with_shown
from uic.pipelines.log.columns import with_columns
from uic.pipelines.log.event_log import open_log
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS
from uic.pipelines.log.shown import event_files
from uic.pipelines.memories.exclude import Exclusion
from uic.pipelines.memories.read import event_schema, read_events
from uic.pipelines.samples.log_parts import log_parts
from uic.pipelines.state.asof import bucket_features
from uic.pipelines.state.rows import CATEGORY, ITEM, ROW, TIME, USER

_EVENTS: Final = 1_000_000
_SEED: Final = 21


class StateCheckError(BadInputError):
    """The log has nothing to hold the parts against."""


@dataclass(frozen=True)
class FeatureFacts:
    """One feature at the end of the log.

    Attributes:
        name: `part.feature`.
        known: share of users with a value.
        nonzero: share of users whose value is none or not 0.
        median: of the values.
        high: their 99th percentile.
    """

    name: str
    known: float
    nonzero: float
    median: float
    high: float


@dataclass(frozen=True)
class StateCheck:
    """What a log says of the parts.

    Attributes:
        users: that were looked at.
        events: theirs.
        of_users: in the log, about.
        features: one each, in order.
        remarks: what to change, one line each.
    """

    users: int
    events: int
    of_users: int
    features: tuple[FeatureFacts, ...]
    remarks: tuple[str, ...]


def check_state(
    log: Path, time_zone: str, state: StateDefinition, columns: Sequence[EventColumn]
) -> StateCheck:
    """Fold some users of a log, and say what their parts hold at its end.

    The candidate of each user is the item of their last event, so `count` is at least 1 unless the
    entry went out.

    Raises:
        StateCheckError: the log has no behaviours.
    """
    opened = open_log(log, time_zone, StateCheckError)
    files = event_files(opened, shown=state.reads_shown)
    total = sum(file.rows for file in files)
    if not total:
        msg = f"{log}: no behaviours; import some first"
        raise StateCheckError(msg)
    every = max(-(-total // _EVENTS), 1)
    read = with_shown(
        [column for column in columns if column.name in state.reads], shown=state.reads_shown
    )
    tables = [event_schema(read).empty_table()]
    for part in log_parts(files, with_columns(BEHAVIOR_EVENTS, read)):
        table, _ = read_events(part, {}, Exclusion(), read)
        hashed = stable_hash(table.column("user_id").to_numpy(), seed=_SEED)
        tables.append(table.filter(pa.array(hashed % np.uint64(every) == 0)))
    events = pa.concat_tables(tables).combine_chunks()
    rows = _last_rows(events)
    found, _ = bucket_features(state, read, events, rows)
    facts = tuple(_facts(one.name, found[:, at]) for at, one in enumerate(state.described))
    remarks = tuple(_remarks(state, facts))
    return StateCheck(rows.num_rows, events.num_rows, rows.num_rows * every, facts, remarks)


def _last_rows(events: pa.Table) -> pa.Table:
    """A row a user at the end of the log, with the item of the user's last event."""
    end = pc.max(events.column("log_time")).as_py() + 1
    order = np.lexsort(
        tuple(events.column(name).to_numpy() for name in ("offset", "epoch", "user_id"))
    )
    ids = events.column("user_id").to_numpy()[order]
    last = order[np.flatnonzero(np.diff(ids, append=ids[-1] + 1))]
    taken = events.take(pa.array(last))
    count = len(last)
    named = {
        name.removeprefix("event."): taken.column(name)
        for name in taken.column_names
        if name.startswith("event.") and pa.types.is_integer(taken.column(name).type)
    }
    return pa.table(
        {
            USER: taken.column("user_id"),
            TIME: np.full(count, end, np.int64),
            ITEM: taken.column("item_id"),
            CATEGORY: taken.column("category_id"),
            ROW: np.arange(count),
            **named,
        }
    )


def _facts(name: str, values: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> FeatureFacts:
    known = values[~np.isnan(values)]
    return FeatureFacts(
        name,
        known=float(known.size / max(values.size, 1)),
        nonzero=float(np.count_nonzero(known) / max(values.size, 1)),
        median=float(np.median(known)) if known.size else float("nan"),
        high=float(np.quantile(known, 0.99)) if known.size else float("nan"),
    )


def _remarks(state: StateDefinition, facts: Sequence[FeatureFacts]) -> list[str]:
    by_name = {one.name: one for one in facts}
    found = []
    for part in state.parts:
        evicted = by_name.get(f"{part.name}.evictions")
        if evicted is not None and evicted.nonzero > 0.05:
            distinct = by_name[f"{part.name}.distinct"]
            found.append(
                f"{part.name}: keys went out for {evicted.nonzero:.0%} of users; a table of more "
                f"than {distinct.high:.0f} keeps them (size)"
            )
        count = by_name.get(f"{part.name}.count")
        bits = getattr(part.settings, "count_bits", None)
        if count is not None and bits and count.high >= (1 << bits) - 1:
            found.append(
                f"{part.name}: counts stay at {(1 << bits) - 1}; set count_bits: {2 * bits}"
            )
        own = [one for one in facts if one.name.startswith(f"{part.name}.")]
        if own and not any(one.nonzero for one in own):
            found.append(f"{part.name}: says nothing of any user; does the log have its events?")
    return found
