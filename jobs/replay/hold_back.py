"""`uic replay hold-back DAY`: the log as it was at midnight, and what came after it, aside.

Behaviours of the day and later leave an imported log and wait in `<workspace>/replay`, from where
`uic replay run` lets them happen again. Impressions stay: nothing reads them before it is told to.
The order:

1. Link the held files into `replay/behaviors` and write its manifest, with what the log's own was.
2. Write the log's shorter manifest, then `epochs.json`, which is the moment of publication.
3. Remove what the log does not name any more.
"""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from uic.models.errors import BadInputError
from uic.models.published import read_manifest, write_json_atomically
from uic.pipelines.log.documents import LOG_SCHEMA_VERSION
from uic.pipelines.log.epochs import epoch_to_json
from uic.pipelines.log.event_log import EPOCHS_NAME, EventLog

HELD_KIND: Final = "held_back"
HELD_SCHEMA_VERSION: Final = 1


class ReplayError(BadInputError):
    """The log, the service or the stream is not as a replay needs it."""


@dataclass(frozen=True)
class HeldBack:
    """What was taken out.

    Attributes:
        day: that is to be lived through again.
        events: of that day.
        later: events of later days, which are held, too, and not replayed.
    """

    day: date
    events: int
    later: int


def hold_back(log_root: Path, held_root: Path, day: date) -> HeldBack:
    """Take the behaviours of `day` and later out of a log that is one import.

    Can be repeated with the same day; `uic.jobs.replay.reset.undo` puts them back.

    Raises:
        ReplayError: the log is not a single import, or has no behaviours or impressions on that
            day.
        LogBusyError: another process writes to the log.
    """
    log = EventLog(log_root)
    with log.locked():
        known = _held_already(held_root, day)
        if known is not None and not log.behavior_files(day):
            return known
        _refuse_second(held_root)
        epochs, manifests = log.epochs(), log.manifests()
        # The import comes first; impressions alone may follow, which have no epoch.
        ordered = [number for number, one in enumerate(manifests) if one["epoch"] is not None]
        if len(epochs) != 1 or epochs[0].kind != "import" or ordered != [0]:
            msg = (
                f"{log_root}: has {len(epochs)} epochs; a day is held back from a single import, "
                "the first of its log; impressions alone may follow it"
            )
            raise ReplayError(msg)
        if log.shown_files(day):
            msg = (
                f"{log_root}: has lists of what was shown on {day} or later, which a replay does "
                "not send; hold back a day of a log without them"
            )
            raise ReplayError(msg)
        taken = log.behavior_files(day)
        if not any(file.dt == day for file in taken):
            days = sorted({file.dt for file in log.behavior_files()})
            msg = f"{log_root}: no behaviours on {day}; it has {days[0]} to {days[-1]}"
            raise ReplayError(msg)
        if not log.impression_files(day, day):
            shown = sorted({file.dt for file in log.impression_files()})
            others = f"there are some from {shown[0]} to {shown[-1]}" if shown else "there are none"
            msg = f"{log_root}: no impressions on {day}, so there is nothing to rank; {others}"
            raise ReplayError(msg)
        # Step 1
        entries = [_link(log_root, held_root, file.path, file.dt, file.rows) for file in taken]
        events = sum(entry["rows"] for entry in entries if entry["dt"] == f"{day}")
        held = HeldBack(day, events, sum(entry["rows"] for entry in entries) - events)
        document = json.loads((log_root / EPOCHS_NAME).read_text(encoding="utf-8"))
        write_json_atomically(
            held_root / "manifest.json",
            {
                "kind": HELD_KIND,
                "schema_version": HELD_SCHEMA_VERSION,
                "day": day.isoformat(),
                "events": held.events,
                "later": held.later,
                "log": {"epochs": document, "manifest": manifests[0]},
                "time_zone": log.time_zone(),
                "files": entries,
            },
        )
        # Step 2
        last = dict(epochs[0].last_offsets)
        for partition, first in _first_offsets([file.path for file in taken]).items():
            last[partition] = first - 1
        names = {file.path.relative_to(log_root).as_posix() for file in taken}
        manifest = manifests[0]
        kept = [entry for entry in manifest["files"] if entry["path"] not in names]
        name = f"000001-{manifest['name']}-before-{day}.json"
        write_json_atomically(log_root / "manifests" / name, {**manifest, "files": kept})
        epoch = {**epoch_to_json(epochs[0]), "last_offsets": _as_json(last)}
        write_json_atomically(
            log_root / EPOCHS_NAME,
            {
                "schema_version": LOG_SCHEMA_VERSION,
                "epochs": [epoch],
                "manifests": [name, *document["manifests"][1:]],
                "held_back": day.isoformat(),
            },
        )
        # Step 3
        log.remove_unpublished()
    return held


def _refuse_second(held_root: Path) -> None:
    """A second day would write over the way back of the first."""
    if (held_root / "manifest.json").is_file():
        held = read_manifest(held_root, HELD_KIND, HELD_SCHEMA_VERSION)["day"]
        msg = f"{held_root}: {held} is held back; `uic replay undo` gives it back first"
        raise ReplayError(msg)


def _held_already(held_root: Path, day: date) -> HeldBack | None:
    if not (held_root / "manifest.json").is_file():
        return None
    manifest = read_manifest(held_root, HELD_KIND, HELD_SCHEMA_VERSION)
    if manifest["day"] != day.isoformat():
        return None
    return HeldBack(day, int(manifest["events"]), int(manifest.get("later", 0)))


def _link(log_root: Path, held_root: Path, path: Path, dt: date, rows: int) -> dict[str, Any]:
    target = held_root / path.relative_to(log_root)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.hardlink_to(path)
    return {
        "path": target.relative_to(held_root).as_posix(),
        "dt": dt.isoformat(),
        "rows": rows,
        "bytes": target.stat().st_size,
    }


def _first_offsets(paths: list[Path]) -> dict[int, int]:
    """The smallest offset of each partition in some files."""
    first: dict[int, int] = {}
    for path in paths:
        table = pq.read_table(path, columns=["partition", "offset"])
        rows: Any = table.group_by("partition").aggregate([("offset", "min")]).to_pylist()
        for row in rows:
            known = first.get(row["partition"], row["offset_min"])
            first[row["partition"]] = min(known, row["offset_min"])
    return first


def _as_json(offsets: dict[int, int]) -> dict[str, int]:
    return {str(partition): offset for partition, offset in offsets.items()}
