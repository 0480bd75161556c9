"""The end of what streams: old files of the archive, of dead letters and of served features.

An archived payload is in the log once it was compacted. Its file stays for some days more, should
the compaction be doubted, and the newest file of each partition always stays: it says where
archiving goes on.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uic.jobs.config.context import Context
from uic.jobs.stream.letters.archive import committed_files, epoch_folder, file_ranges
from uic.jobs.stream.letters.compact import archive_of
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
        _removed(
            "dead letters",
            _old(_files(context.workspace / "stream" / "dead-letters"), stream.dead_letter_days),
        ),
        _removed(
            "served features",
            _old(_files(context.workspace / "serving" / "features"), serve.feature_days),
        ),
    ]
    return [pruned for pruned in done if pruned.files]


def _compacted(context: Context) -> list[Path]:
    """Files of the archive that are wholly in the log, but for the newest of a partition."""
    archive = archive_of(context)
    paths = []
    for epoch in EventLog(context.log).epochs():
        if epoch.kind != "topic" or not epoch_folder(archive, epoch.number).is_dir():
            continue
        for partition, last in epoch.last_offsets.items():
            files = committed_files(archive, epoch.number, partition)
            ranges = sorted(file_ranges(archive, epoch.number, files), key=lambda one: one[1])
            paths += [path for _, final, path in ranges[:-1] if final <= last]
    return paths


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
