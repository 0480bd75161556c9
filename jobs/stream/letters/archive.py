"""The archive: every payload that streamed, with its place in the log, as files by day.

`stream/archive/epoch=00002/dt=2026-01-31/part=0/part-…` are JSON lines (see `event_files`), written
by Flink's file sink. A file appears with the checkpoint after it was closed, holds one run of one
partition, and may repeat what another file has (a run that was started again); positions tell.
`dt` of a folder is the day in UTC; `uic log compact` sorts events into the workspace's days.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from uic.models.published import write_json_atomically

_TAIL_BYTES: Final = 1 << 16
_STARTS_NAME: Final = "first-starts.json"
_RANGES_NAME: Final = "ranges.json"


class _Position(msgspec.Struct, gc=False):
    log_offset: int


_POSITION = msgspec.json.Decoder(_Position)


def epoch_folder(archive: Path, epoch: int) -> Path:
    """Where an epoch's payloads are."""
    return archive / f"epoch={epoch:05d}"


def committed_files(archive: Path, epoch: int, partition: int) -> list[Path]:
    """Files of a partition that are complete; Flink hides those in progress behind a dot."""
    return sorted(
        path
        for path in epoch_folder(archive, epoch).glob(f"dt=*/part={partition}/*")
        if not path.name.startswith(".") and path.stat().st_size
    )


def archived_up_to(archive: Path, epoch: int, partitions: int) -> dict[int, int]:
    """By partition, the offset from which reading must start so that the archive has no hole.

    The newest file does not count: what it shares its checkpoint with (the dead letters) may not
    have been committed when the job was killed. Without files it is where the first run started;
    a partition that was never archived has no entry.
    """
    noted = epoch_folder(archive, epoch) / _STARTS_NAME
    ends = {
        int(partition): offset
        for partition, offset in (json.loads(noted.read_text()) if noted.exists() else {}).items()
    }
    for partition in range(partitions):
        files = committed_files(archive, epoch, partition)
        ranges = sorted((first, last) for first, last, _ in file_ranges(archive, epoch, files))
        if not ranges:
            continue
        newest = max(last for _, last in ranges)
        counted = [entry for entry in ranges if entry[1] != newest]
        ends[partition] = max((last for _, last in counted), default=ranges[0][0] - 1) + 1
    return ends


def note_first_starts(archive: Path, epoch: int, starts: Mapping[int, int]) -> None:
    """Remember where archiving began, for a run that is killed before its first file."""
    noted = epoch_folder(archive, epoch) / _STARTS_NAME
    known = json.loads(noted.read_text()) if noted.exists() else {}
    document = {str(partition): offset for partition, offset in starts.items()} | known
    if document != known:
        write_json_atomically(noted, document)


def file_ranges(archive: Path, epoch: int, paths: Sequence[Path]) -> list[tuple[int, int, Path]]:
    """First and last offset of files of an epoch, and the file.

    A file does not change its range, so each is opened once and then looked up in `ranges.json`
    beside them, which any look may write anew: without it, they are read again.
    """
    folder = epoch_folder(archive, epoch)
    index = folder / _RANGES_NAME
    try:
        known: dict[str, list[int]] = json.loads(index.read_text())
    except (OSError, ValueError):
        known = {}
    ranges, read = [], False
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if name not in known:
            known[name] = list(file_range(path))
            read = True
        first, last = known[name]
        ranges.append((first, last, path))
    if read:
        there = {name: both for name, both in known.items() if (folder / name).exists()}
        with suppress(OSError):  # an index that cannot be written costs time, no more
            write_json_atomically(index, there)
    return ranges


def file_range(path: Path) -> tuple[int, int]:
    """First and last offset of a file, from its first and last line."""
    with path.open("rb") as stream:
        first = _POSITION.decode(stream.readline())
        size = path.stat().st_size
        tail = _TAIL_BYTES
        while True:
            stream.seek(max(0, size - tail))
            lines = stream.read().rstrip(b"\n").split(b"\n")
            if len(lines) > 1 or tail >= size:
                return first.log_offset, _POSITION.decode(lines[-1]).log_offset
            tail *= 16
