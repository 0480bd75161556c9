"""Behaviour events as files: gzip JSON lines, each file one run of one partition.

A line is `{"payload": base64, "log_partition": 0, "log_offset": 42, "log_time":
"2026-01-31T12:00:00.123Z"}`; the archive of the stream job has the same columns, so that an
archive can be streamed again. Payloads are base64, since a payload may be anything, and what is
not UTF-8 must reach the parser (and the dead letters) as it was.

Order holds only within one file. So each partition is read as one file at a time: `stage_files`
joins the files of a partition (a gzip file may have several members), and
`uic.jobs.stream.run.file_feed` hands new ones on when the one before is folded.
"""

import gzip
import itertools
import shutil
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from uic.models.errors import BadInputError
from uic.models.published import replacement

SUFFIX: Final = ".jsonl.gz"


class _Line(msgspec.Struct, gc=False):
    payload: bytes | None  # msgspec reads and writes bytes as base64
    log_partition: int
    log_offset: int
    log_time: str


_DECODER: Final = msgspec.json.Decoder(_Line)


@dataclass(frozen=True)
class LoggedPayload:
    """One payload with its place in the log."""

    payload: bytes | None
    partition: int
    offset: int
    log_time_ms: int


@dataclass(frozen=True)
class EventFile:
    """One file: offsets `first` to `last` of one partition, without a gap."""

    path: Path
    partition: int
    first: int
    last: int


def write_event_file(path: Path, rows: Iterable[LoggedPayload]) -> int:
    """Write `rows` (one partition, ascending offsets) and return how many there were.

    The file appears under its name when it is complete.
    """
    count = 0
    # No name and no time in the header: same rows, same bytes.
    with (
        replacement(path) as draft,
        draft.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=1, mtime=0) as stream,
    ):
        for row in rows:
            stream.write(line_of(row))
            count += 1
    return count


def line_of(row: LoggedPayload) -> bytes:
    """One row as a line."""
    payload = b"null" if row.payload is None else b'"' + b64encode(row.payload) + b'"'
    time = np.datetime_as_string(np.datetime64(row.log_time_ms, "ms")) + "Z"
    return b'{"payload":%b,"log_partition":%d,"log_offset":%d,"log_time":"%b"}\n' % (
        payload,
        row.partition,
        row.offset,
        time.encode(),
    )


def read_lines(path: Path) -> Iterator[LoggedPayload]:
    """The rows of a file, gzip or plain.

    Raises:
        BadInputError: it is cut off, not gzip, or a line is not a row; names file and line.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as stream:
            for number, line in enumerate(stream, 1):  # noqa: B007 - for the message
                row = _DECODER.decode(line)
                time = np.datetime64(row.log_time.removesuffix("Z"), "ms").astype(np.int64)
                yield LoggedPayload(row.payload, row.log_partition, row.log_offset, int(time))
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError, ValueError) as error:
        msg = (
            f"{path}: line {number}: {error}; expected gzip JSON lines of payload (base64), "
            "log_partition, log_offset and log_time"
        )
        raise BadInputError(msg) from error


def scan_event_file(path: Path) -> EventFile | None:
    """Read a file through once: its partition and offsets; None if it is empty.

    Raises:
        BadInputError: unreadable, of two partitions, or its offsets do not follow each other.
    """
    first: LoggedPayload | None = None
    last = -1
    for row in read_lines(path):
        if first is None:
            first, last = row, row.offset
            continue
        if row.partition != first.partition:
            msg = (
                f"{path}: partitions {first.partition} and {row.partition} in one file; "
                "write one file for each"
            )
            raise BadInputError(msg)
        if row.offset != last + 1:
            msg = f"{path}: offset {row.offset} follows {last}, expected {last + 1}"
            raise BadInputError(msg)
        last = row.offset
    return None if first is None else EventFile(path, first.partition, first.offset, last)


def scan_folder(
    folder: Path, known: dict[Path, EventFile | None] | None = None
) -> dict[int, list[EventFile]]:
    """The event files of a folder by partition, in order of offset.

    Args:
        folder: searched with its sub-folders.
        known: files that were scanned before; new ones are added.

    Raises:
        BadInputError: no folder, an unreadable file, or files that overlap or leave a gap.
    """
    if not folder.is_dir():
        msg = f"{folder}: no such folder; `uic events produce --to files` writes one"
        raise BadInputError(msg)
    known = {} if known is None else known
    files: dict[int, list[EventFile]] = {}
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        if path.name.startswith("."):
            continue
        if path not in known:
            known[path] = scan_event_file(path)
        found = known[path]
        if found is not None:
            files.setdefault(found.partition, []).append(found)
    for partition, own in files.items():
        own.sort(key=lambda file: file.first)
        for before, after in itertools.pairwise(own):
            if after.first != before.last + 1:
                msg = (
                    f"{after.path}: partition {partition} starts at offset {after.first}, "
                    f"{before.path.name} ends at {before.last}; expected {before.last + 1}"
                )
                raise BadInputError(msg)
    return files


def stage_file(target: Path, files: list[EventFile]) -> None:
    """Make one file of several of one partition, by one rename; a single file is linked."""
    with replacement(target) as draft:
        if len(files) == 1:
            try:
                draft.hardlink_to(files[0].path)
            except OSError:  # another file system
                shutil.copyfile(files[0].path, draft)
        else:
            with draft.open("wb") as joined:
                for file in files:
                    with file.path.open("rb") as part:
                        shutil.copyfileobj(part, joined)
