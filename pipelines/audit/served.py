"""What answers were given with, beside the log: the skew between training and serving.

The ranking service writes down what it scored with (`serve.log_features`): the memory's bytes, the
candidates and their probabilities. Here each of those memories is folded again from the log, up to
the position that it carries, and each candidate is scored with that fold by the model that was
trained. Memories must be the same bytes; probabilities may differ by what summing in batches of
another size does to float32.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from uic.feature_repo.snapshots.snapshots import Snapshot, list_snapshots
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.memory.fold import MemoryFolder
from uic.models.memory.state import MemoryState
from uic.models.rankers.mimn import Mimn
from uic.models.records.record import Records, header_view
from uic.pipelines.audit.expected import fold_to_positions
from uic.pipelines.audit.memories import AuditError, AuditRequest
from uic.pipelines.audit.sampled import SampledLog, buckets_for, by_bucket
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.memories.exclude import Exclusion

# Sums of a few hundred float32 products, in another order.
PROBABILITY_TOLERANCE: Final = 1e-4
_COLUMNS: Final = ("user_id", "item_ids", "probabilities", "bundle", "generation", "memory")


@dataclass(frozen=True)
class ServedAudit:
    """Answers beside the log.

    Attributes:
        answers: that were given with a memory.
        memories: different ones among them.
        matched: memories that are the log's fold, byte for byte.
        differing: those that are not.
        ahead: memories whose position the log does not have yet; not judged.
        scored: candidates whose probability was computed again.
        largest_difference: of a probability.
    """

    answers: int
    memories: int
    matched: int
    differing: int
    ahead: int
    scored: int
    largest_difference: float

    @property
    def mismatches(self) -> int:
        """What must be zero."""
        return self.differing + (self.largest_difference > PROBABILITY_TOLERANCE)

    def to_json(self) -> dict[str, Any]:
        """For files and programs."""
        return {**vars(self), "probability_tolerance": PROBABILITY_TOLERANCE}


@dataclass
class _Counts:
    memories: int = 0
    matched: int = 0
    differing: int = 0
    ahead: int = 0
    scored: int = 0
    largest: float = 0.0


def audit_served(
    request: AuditRequest,
    features: Path,
    progress: Callable[[int], None] = lambda _rows: None,
) -> ServedAudit | None:
    """Hold everything in `features` against the log; None if nothing was written there.

    Args:
        request: where log, snapshots and bundles are.
        features: `<workspace>/serving/features`.
        progress: gets rows of the log that were read.

    Raises:
        AuditError: the snapshots of a generation are gone.
    """
    paths = sorted(features.glob("dt=*/*.parquet"))
    if not paths:
        return None
    rows = pa.concat_tables([pq.read_table(path, columns=list(_COLUMNS)) for path in paths])
    rows = rows.filter(pc.is_valid(rows.column("memory"))).combine_chunks()
    counts = _Counts()
    for number in np.unique(rows.column("generation").to_numpy()).tolist():
        mine = rows.filter(pc.equal(rows.column("generation"), number))
        _audit_rows(request, number, mine, counts, progress)
    return ServedAudit(
        answers=rows.num_rows,
        memories=counts.memories,
        matched=counts.matched,
        differing=counts.differing,
        ahead=counts.ahead,
        scored=counts.scored,
        largest_difference=counts.largest,
    )


def _audit_rows(
    request: AuditRequest,
    number: int,
    rows: pa.Table,
    counts: _Counts,
    progress: Callable[[int], None],
) -> None:
    snapshot = _snapshot_of(request.memories, number)
    bundle = load_bundle(BundleShelf(request.bundles).find(str(snapshot.manifest["bundle"])))
    folder = MemoryFolder(bundle, number)
    log = EventLog(request.log)
    files = log.behavior_files(date.fromisoformat(snapshot.manifest["first_day"]))
    users = np.unique(rows.column("user_id").to_numpy())
    buckets = buckets_for(sum(file.rows for file in files), rows.num_rows)
    sampled = SampledLog(request.scratch, buckets)
    categories = _categories(log)
    last = {epoch.number: epoch.last_offsets for epoch in log.epochs()}
    try:
        exclusion = Exclusion.from_json(snapshot.manifest["exclude"])
        sampled.read(files, exclusion, _Users(users), progress)
        for bucket, here in enumerate(by_bucket(users, buckets)):
            if not len(here):
                continue
            events = sampled.events(bucket)
            inside = np.isin(rows.column("user_id").to_numpy(), here)
            for part in _rounds(rows.filter(pa.array(inside))):
                ids, records = _records(part, folder.record_bytes)
                expected = fold_to_positions(
                    folder,
                    ids,
                    events.filter(pa.array(np.isin(events.column("user_id").to_numpy(), ids))),
                    served=records,
                    found=np.ones(len(ids), dtype=np.bool_),
                    marks=snapshot.positions,
                ).records
                beyond = _beyond(records, last)
                equal = (expected == records).all(axis=1)
                counts.memories += len(ids)
                counts.ahead += int(beyond.sum())
                counts.matched += int((equal & ~beyond).sum())
                counts.differing += int((~equal & ~beyond).sum())
                scored, difference = _score(bundle, expected, part, ~beyond, categories)
                counts.scored += scored
                counts.largest = max(counts.largest, difference)
    finally:
        sampled.close()


@dataclass(frozen=True)
class _Users:
    """Exactly these users, as a sample."""

    ids: NDArray[np.int64]

    def takes(self, user_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(users,) -> (users,), bool."""
        return np.isin(user_ids, self.ids)


def _snapshot_of(memories: Path, number: int) -> Snapshot:
    mine = [found for found in list_snapshots(memories) if found.generation == number]
    if not mine:
        msg = f"{memories}: no snapshot of generation {number} is left, whose memories were served"
        raise AuditError(msg)
    return mine[-1]


def _categories(log: EventLog) -> Mapping[int, int]:
    path = log.items_file()
    if path is None:
        return {}
    table = pq.read_table(path, columns=["item_id", "category_id"])
    columns = (table.column(name).to_pylist() for name in ("item_id", "category_id"))
    return dict(zip(*columns, strict=True))


def _rounds(rows: pa.Table) -> Iterator[pa.Table]:
    """Tables in which every user occurs once, in order of user; together they are `rows`."""
    users = rows.column("user_id").to_numpy()
    order = np.argsort(users, kind="stable")
    ordered = users[order]
    starts = np.r_[True, ordered[1:] != ordered[:-1]]
    firsts = np.flatnonzero(starts)
    place = np.arange(len(ordered)) - firsts[np.cumsum(starts) - 1]
    for at in range(int(place.max(initial=-1)) + 1):
        yield rows.take(pa.array(order[place == at]))


def _records(part: pa.Table, record_bytes: int) -> tuple[NDArray[np.int64], Records]:
    joined = b"".join(part.column("memory").to_pylist())
    if len(joined) != part.num_rows * record_bytes:
        width = len(joined) // part.num_rows
        msg = f"a served memory has {width} bytes, its generation's have {record_bytes}"
        raise AuditError(msg)
    records = np.frombuffer(joined, dtype=np.uint8).reshape(part.num_rows, record_bytes)
    return part.column("user_id").to_numpy(), records


def _beyond(records: Records, last: Mapping[int, Mapping[int, int]]) -> NDArray[np.bool_]:
    """Memories whose position is not in the log yet."""
    header = header_view(records)
    beyond = np.zeros(len(records), dtype=np.bool_)
    for epoch, partitions in last.items():
        for partition, offset in partitions.items():
            here = (header["epoch"] == epoch) & (header["partition"] == partition)
            beyond |= here & (header["offset"].astype(np.int64) > offset)
    return beyond


def _score(
    bundle: Bundle,
    expected: Records,
    part: pa.Table,
    judged: NDArray[np.bool_],
    categories: Mapping[int, int],
) -> tuple[int, float]:
    """Score a round again where this bundle was the one that scored; how many, and how far off."""
    model = bundle.model
    mine = f"{bundle.name}/{bundle.version}"
    chosen = judged & np.array([name == mine for name in part.column("bundle").to_pylist()])
    if not isinstance(model, Mimn) or not chosen.any():
        return 0, 0.0
    kept = part.filter(pa.array(chosen))
    lists = kept.column("item_ids").to_pylist()
    items = np.array([item for row in lists for item in row], dtype=np.int64)
    owners = np.repeat(np.arange(len(lists)), [len(row) for row in lists])
    served = np.array([p for row in kept.column("probabilities").to_pylist() for p in row])
    kinds = np.array([categories.get(int(item), -1) for item in items], dtype=np.int64)
    known = kinds >= 0  # of an item that the table lacks, the service cannot know the category
    state = MemoryState.unpack(expected[chosen], bundle.memory.layout)
    with torch.no_grad():
        vectors = bundle.embed(items[known], kinds[known])
        features = model.reading(state, torch.from_numpy(owners[known]), vectors)
        again = model.head(features).sigmoid().numpy()
    return int(known.sum()), float(np.abs(again - served[known]).max(initial=0.0))
