"""The end of what streams: old files of the archive, of dead letters and of served features.

An archived payload is in the log once it was compacted. Its file stays for some days more, should
the compaction be doubted, and the newest file of each partition always stays: it says where
archiving goes on.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uic.jobs.config.context import Context
from uic.jobs.stream.letters.archive import committed_files, epoch_folder, file_ranges
from uic.jobs.stream.letters.compact import archive_of
from uic.pipelines.log.epochs import Epoch
from uic.pipelines.log.event_log import EventLog

_DAY_SECONDS: Final = 86_400


@dataclass(frozen=True)
class Pruned:
    """Files of a place that were removed, and what they took on disk."""

    place: str
    files: int
    bytes: int


def prune_streamed(context: Context) -> list[Pruned]:
    """Remove what is older than the settings say; places that had some.

    `stream.archive_days`, `stream.dead_letter_days` and `serve.feature_days`; none keeps for ever.
    """
    stream, serve = context.config.stream, context.config.serve
    done = [
        _removed("archive", _old(_compacted(context), stream.archive_days)),
        _removed("dead letters", _old(_read_letters(context), stream.dead_letter_days)),
        _removed(
            "served features",
            _old(_files(context.workspace / "serving" / "features"), serve.feature_days),
        ),
    ]
    return [pruned for pruned in done if pruned.files]


def _compacted(context: Context) -> list[Path]:
    """Files of the archive that are wholly in the log, but for the newest of a partition."""
    return [
        path
        for epoch in _topics(context)
        for last, ranges in _ranges(context, epoch)
        for _, final, path in ranges[:-1]
        if final <= last
    ]


def _read_letters(context: Context) -> list[Path]:
    """Files of dead letters that no compaction needs any more.

    It leaves out of the log what the stream has refused as moved, which the letters alone say. They
    may be written a day before the archive's file of the same events is closed.
    """
    paths = []
    for epoch in _topics(context):
        waiting = [
            path.stat().st_mtime
            for last, ranges in _ranges(context, epoch)
            for _, final, path in ranges
            if final > last
        ]
        needed_from = min(waiting, default=float("inf")) - _DAY_SECONDS
        folder = epoch_folder(context.workspace / "stream" / "dead-letters", epoch.number)
        paths += [path for path in _files(folder) if path.stat().st_mtime < needed_from]
    return paths


def _topics(context: Context) -> list[Epoch]:
    return [epoch for epoch in EventLog(context.log).epochs() if epoch.kind == "topic"]


def _ranges(context: Context, epoch: Epoch) -> Iterator[tuple[int, list[tuple[int, int, Path]]]]:
    """Of each partition, the last offset that the log has, and the archive's files in order."""
    archive = archive_of(context)
    for partition, last in epoch.last_offsets.items():
        files = committed_files(archive, epoch.number, partition)
        ranges = file_ranges(archive, epoch.number, files)
        yield last, sorted(ranges, key=lambda one: one[1])


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]


def _old(paths: list[Path], days: float | None) -> list[Path]:
    if days is None:
        return []
    before = time.time() - days * _DAY_SECONDS
    return [path for path in paths if path.stat().st_mtime < before]


def _removed(place: str, paths: list[Path]) -> Pruned:
    size = 0
    for path in paths:
        size += path.stat().st_size
        path.unlink()
    for folder in {path.parent for path in paths}:
        if not any(folder.iterdir()):
            shutil.rmtree(folder)
    return Pruned(place, len(paths), size)
