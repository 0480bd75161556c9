"""Running an import: one importer's batches through the log writer, whole or not at all."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from uic.models.errors import BadInputError
from uic.pipelines.importers.features import FeatureCollector, FeatureSummary
from uic.pipelines.importers.next_item import NextItem, NextItemCounts, NextItemOptions
from uic.pipelines.importers.plausible import PlausibleTimes
from uic.pipelines.importers.source import Importer, OwnerRows, Rejects, fingerprint
from uic.pipelines.importers.string_ids import StringIds
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.shown import with_lists
from uic.pipelines.log.writer import LogWriter, Part, Publication

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ImportSummary:
    """What an import published.

    Attributes:
        publication: files, counts and times.
        rejects: rows that could not be used, by reason.
        rejects_path: the file that has them; None without any.
        first_reject: a line with the place and reason of one.
        next_item: what the protocol made; None without it.
        features: what became of features; None without any.
        left_out: rows that were not asked for.
        remarks: what a person should know, a sentence each.
        left_out_by: the option that did not ask for the rows.
    """

    publication: Publication
    rejects: Mapping[str, int]
    rejects_path: Path | None
    first_reject: str | None
    next_item: NextItemCounts | None
    features: FeatureSummary | None = None
    left_out: int = 0
    remarks: tuple[str, ...] = ()
    left_out_by: str = "--where"


def run_import(
    importer: Importer,
    log: EventLog,
    *,
    time_zone: str,
    partitions: int,
    again: bool = False,
    impressions_only: bool = False,
    any_time: bool = False,
    shown: bool = False,
    next_item: NextItemOptions | None = None,
    features: FeatureCollector | None = None,
    progress: Progress | None = None,
) -> ImportSummary:
    """Import everything, or change nothing.

    Args:
        importer: the format with its files.
        log: where to.
        time_zone: whose days are `dt`.
        partitions: of the new epoch; count.
        again: allow a file that is in the log already.
        impressions_only: leave the files' behaviours out, and take no epoch; so impressions go
            in beside any log, also one that streams.
        any_time: take times before 2000 and later than tomorrow, too; else a row with one is a
            reject, and a file of them is refused.
        shown: keep each impression as an event, too, which parts of a record can read.
        next_item: make impressions by protocol; None keeps what the files have.
        features: takes the features that the files have; None leaves them out.
        progress: called with (step, done, total).

    Raises:
        BadInputError: a file is not what it has to be, or no row of it is good.
        ImplausibleTimesError: most times cannot be true.
        DuplicateImportError: a file is in the log already.
        BackfillError: behaviours would come after a topic's; nothing is written.
        LogWriteError: the disk is full, or the like.
    """
    report = progress or (lambda _step, _done, _total: None)
    if next_item is not None and importer.has_impressions:
        msg = f"{importer.name}: has impressions of its own; leave out --protocol next-item"
        raise BadInputError(msg)
    if impressions_only and not importer.has_impressions:
        msg = (
            f"{importer.name}: has no impressions of its own; a table's need their label "
            "(--clicked COL), and no --protocol"
        )
        raise BadInputError(msg)
    if shown and (impressions_only or not importer.has_impressions):
        msg = (
            f"{importer.name}: --shown makes events of the impressions of files that have both; "
            "a table's need their label (--clicked COL), and no --impressions"
        )
        raise BadInputError(msg)
    report("reading sums", 0, 1)
    details = {"protocol": "next-item", **asdict(next_item)} if next_item else {}
    part = Part(
        importer.name, fingerprint(importer.sources()), _notes(importer, next_item), details
    )
    spool = log.root / "spool"
    with (
        LogWriter(
            log,
            part,
            time_zone=time_zone,
            partitions=partitions,
            again=again,
            impressions_only=impressions_only,
        ) as writer,
        closing(
            Rejects(
                log.root / "rejects" / f"{writer.tag}-{importer.name}.jsonl",
                PlausibleTimes.any_time() if any_time else PlausibleTimes.until_tomorrow(),
            )
        ) as rejects,
    ):
        # What these two keep on disk goes with the writer's own spool.
        ids = StringIds(spool, log)
        protocol = NextItem(spool / "next-item", next_item) if next_item else None
        add_behaviors: Callable[[pa.Table], None] = (
            protocol.add if protocol else writer.add_behaviors
        )
        if impressions_only:
            add_behaviors = _leave_out
        rows = _read(
            importer,
            writer,
            rejects,
            ids,
            add_behaviors=add_behaviors,
            shown=shown,
            add_features=features.add if features else _leave_out,
            report=report,
        )
        rejects.times.refuse_most(importer.sources()[0])
        if not rows:
            reject = rejects.first_of(importer.sources()[0])
            first = f"; first: {reject}" if reject else "; it has none"
            if rejects.left_out:
                left_out = f"; {rejects.left_out_by} leaves {rejects.left_out:,} out"
                first = f"{left_out}{first if reject else ''}"
            msg = f"{importer.sources()[0]}: no row could be imported{first}"
            raise BadInputError(msg)
        ids.refuse_another_kind(importer.sources()[0])
        if protocol:
            _predict(protocol, writer, importer)
        rejects.close()
        if rejects.rows:
            writer.add_file("rejects", rejects.path, rejects.rows)
        ids.publish(writer)
        # Before the log: what a killed import leaves is true, and written once more by the next.
        writer.note_columns(features.event_columns() if features else [])
        made = features.publish() if features else None
        published = writer.publish(lambda done, total: report("writing days", done, total))
    return ImportSummary(
        published,
        dict(rejects.by_reason),
        rejects.path if rejects.rows else None,
        rejects.first_of(importer.sources()[0]),
        protocol.counts if protocol else None,
        made,
        rejects.left_out,
        tuple(rejects.remarks),
        rejects.left_out_by,
    )


def _read(
    importer: Importer,
    writer: LogWriter,
    rejects: Rejects,
    ids: StringIds,
    *,
    add_behaviors: Callable[[pa.Table], None],
    shown: bool,
    add_features: Callable[[OwnerRows], None],
    report: Progress,
) -> int:
    rows = 0
    for batch in importer.batches(rejects, ids):
        if batch.items is not None:
            writer.add_items(batch.items["item_id"], batch.items["category_id"])
        if batch.behaviors is not None:
            rows += batch.behaviors.num_rows
            lists = batch.impressions if shown else None
            add_behaviors(with_lists(batch.behaviors, lists) if shown else batch.behaviors)
        if batch.impressions is not None:
            rows += batch.impressions.num_rows
            writer.add_impressions(batch.impressions)
        for of_owner in batch.features:
            add_features(of_owner)
        report("reading", batch.done, importer.total)
    return rows


def _leave_out(_rows: object) -> None:
    """Take what is not asked for, such as the behaviours of an import of impressions."""


def _predict(protocol: NextItem, writer: LogWriter, importer: Importer) -> None:
    rows = 0
    for behaviors, impressions in protocol.results():
        writer.add_behaviors(behaviors)
        writer.add_impressions(impressions)
        rows += impressions.num_rows
    if not rows:
        counts = protocol.counts
        msg = (
            f"{importer.sources()[0]}: none of {counts.users} users makes an impression "
            f"({counts.too_short} have too few events, {counts.without_negative} have every "
            "item); lower --min-length"
        )
        raise BadInputError(msg)


def _notes(importer: Importer, next_item: NextItemOptions | None) -> list[str]:
    if next_item is None:
        return list(importer.notes)
    return [
        *importer.notes,
        (
            "Impressions are made by the next-item protocol: a user's last event, clicked, and one "
            "item drawn by its share of all events that is not in the user's sequence."
        ),
        (
            "The target is not among the behaviours. Events of one user at one time are moved "
            "apart by a millisecond each, in file order."
        ),
    ]
