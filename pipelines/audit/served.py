"""What answers were given with, beside the log: the skew between training and serving.

The ranking service writes down what it scored with (`serve.log_features`): the memory's bytes, the
candidates and their probabilities. Here each of those memories is folded again from the log, up to
the position that it carries, and each candidate is scored with that fold by the model that was
trained. Memories must be the same bytes; probabilities may differ by what summing in batches of
another size does to float32.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.feature_repo.snapshots.published_values import values_of
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.features.definition import FeatureSet
from uic.models.memory.fold import MemoryFolder
from uic.models.records.record import Records, header_view
from uic.pipelines.audit.expected import fold_to_positions
from uic.pipelines.audit.memories import AuditRequest, snapshot_of
from uic.pipelines.audit.report import ServedAudit
from uic.pipelines.audit.sampled import SampledLog, buckets_for, by_bucket
from uic.pipelines.audit.scored_again import ScoredAgain
from uic.pipelines.audit.served_values import audit_features
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.events import MAX_ID
from uic.pipelines.log.positions import at_or_before
from uic.pipelines.log.shown import event_files
from uic.pipelines.memories.exclude import Exclusion

_COLUMNS: Final = ("user_id", "item_ids", "probabilities", "bundle", "generation", "memory")
# Not in files of every version of the service.
_LATER_COLUMNS: Final = {
    "features": pa.string(),
    "served_at": pa.int64(),  # milliseconds since 1970 UTC
    "user_valid_from": pa.int64(),  # likewise
    "reasons": pa.list_(pa.string()),
    "moment": pa.int64(),  # milliseconds since 1970 UTC
}


def audit_served(
    request: AuditRequest,
    features: Path,
    progress: Callable[[int], None] = lambda _rows: None,
    site: FeatureSet | None = None,
) -> ServedAudit | None:
    """Hold everything in `features` against the log; None if nothing was written there.

    Args:
        request: where log, snapshots and bundles are.
        features: `<workspace>/serving/features`.
        progress: gets rows of the log that were read.
        site: features of the workspace, to hold those of the answers against; None for none.

    Raises:
        AuditError: the snapshots of a generation are gone.
        FeatureTableError: a table of features is not what it has to be.
        RecordFormatError: a served memory is of another width.
    """
    paths = sorted(features.glob("dt=*/*.parquet"))
    if not paths:
        return None
    rows = pa.concat_tables([read_answers(path) for path in paths])
    beside = None if site is None or not len(site) else audit_features(rows, site)
    # Generation 0: a history of events, which older services wrote down as a memory.
    kept = pc.and_(pc.is_valid(rows.column("memory")), pc.greater(rows.column("generation"), 0))
    rows = rows.filter(kept).combine_chunks()
    audit = ServedAudit(rows.num_rows, features=beside)
    for number in np.unique(rows.column("generation").to_numpy()).tolist():
        mine = rows.filter(pc.equal(rows.column("generation"), number))
        _audit_rows(request, number, mine, audit, progress)
    return audit


def read_answers(path: Path) -> pa.Table:
    """A file of the service's log; columns that its version did not have are null."""
    table = pq.read_table(path)
    later = []
    for name, kind in _LATER_COLUMNS.items():
        if name not in table.column_names:
            later.append(pa.chunked_array([pa.nulls(table.num_rows, kind)]))
        elif pa.types.is_timestamp(table.schema.field(name).type):
            later.append(table.column(name).cast(pa.timestamp("ms", "UTC")).cast(kind))
        else:
            later.append(table.column(name).cast(kind))
    own = table.select(_COLUMNS)
    return pa.table([*own.columns, *later], names=[*_COLUMNS, *_LATER_COLUMNS])


def _audit_rows(
    request: AuditRequest,
    number: int,
    rows: pa.Table,
    audit: ServedAudit,
    progress: Callable[[int], None],
) -> None:
    snapshot = snapshot_of(request.memories, number)
    bundle = load_bundle(BundleShelf(request.bundles).find(str(snapshot.manifest["bundle"])))
    folder = MemoryFolder(bundle, number, snapshot.learns_from_ms)
    log = EventLog(request.log)
    first_day = date.fromisoformat(snapshot.manifest["first_day"])
    files = event_files(log, first_day, shown=bundle.reads_shown)
    users = np.unique(rows.column("user_id").to_numpy())
    buckets = buckets_for(sum(file.rows for file in files), rows.num_rows)
    sampled = SampledLog(request.scratch, buckets, bundle.read_columns)
    again = ScoredAgain(BundleShelf(request.bundles), bundle, _categories(log))
    tail = request.tail.read()
    last = {epoch.number: tail.end(epoch) for epoch in log.epochs()}
    try:
        exclusion = Exclusion.from_json(snapshot.manifest["exclude"])
        takes = partial(np.isin, test_elements=users)
        sampled.read(
            [*files, *tail.read_with(shown=bundle.reads_shown)], exclusion, takes, progress
        )
        for bucket, here in enumerate(by_bucket(users, buckets)):
            if not len(here):
                continue
            events = sampled.events(bucket)
            inside = np.isin(rows.column("user_id").to_numpy(), here)
            for part in _rounds(rows.filter(pa.array(inside))):
                ids = part.column("user_id").to_numpy()
                memories = part.column("memory").combine_chunks()
                records = values_of(memories, folder.record_bytes, "a served memory")
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
                audit.memories += len(ids)
                audit.ahead += int(beyond.sum())
                audit.matched += int((equal & ~beyond).sum())
                audit.differing += int((~equal & ~beyond).sum())
                again.add(audit, expected, part, ~beyond)
    finally:
        sampled.close()


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


def _beyond(records: Records, last: Mapping[int, Mapping[int, int]]) -> NDArray[np.bool_]:
    """Memories whose position is of a partition of the log, and not in it yet."""
    header = header_view(records)
    position = (header["epoch"], header["partition"], header["offset"])
    known = {epoch: dict.fromkeys(partitions, MAX_ID) for epoch, partitions in last.items()}
    return at_or_before(*position, known) & ~at_or_before(*position, last)
