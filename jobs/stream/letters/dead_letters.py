"""Dead letters: rejected payloads with their place in the log and the reason.

As files they are `stream/dead-letters/epoch=00002/part-…`, JSON lines like the archive's with a
`reason`. Since the stream replays after a crash, a letter may be there twice; its position tells.
"""

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uic.jobs.config.context import Context
from uic.jobs.stream.topics.produce import Outgoing
from uic.models.errors import BadInputError
from uic.models.published import write_json_atomically


@dataclass(frozen=True)
class DeadLetter:
    """One rejected payload; `payload_bytes` is its length before a topic's letter was cut."""

    epoch: int
    partition: int
    offset: int
    log_time_ms: int
    reason: str
    payload: bytes | None
    payload_bytes: int | None = None

    @property
    def is_cut(self) -> bool:
        """Whether `payload` is the beginning of a longer one."""
        return (self.payload_bytes or 0) > len(self.payload or b"")

    @property
    def place(self) -> tuple[int, int, int]:
        """Epoch, partition and offset."""
        return self.epoch, self.partition, self.offset


def read_dead_letters(folder: Path, *, unfinished: bool = False) -> Iterator[DeadLetter]:
    """Every letter once, by epoch and in the order of files.

    Args:
        folder: with a folder an epoch.
        unfinished: read files that are still written to, too, up to their last whole line. Flink
            brings them to disk with every checkpoint, and names them only when they are closed.

    Raises:
        BadInputError: a file is not one of dead letters.
    """
    seen: set[tuple[int, int, int]] = set()
    for path in sorted(folder.glob("epoch=*/*")):
        hidden = path.name.startswith(".")
        if (hidden and not (unfinished and "inprogress" in path.name)) or not path.is_file():
            continue
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if hidden and not line.endswith(b"\n"):
                    break
                letter = _letter(line, f"{path}: line {number}")
                if letter.place not in seen:
                    seen.add(letter.place)
                    yield letter


def _letter(line: bytes, where: str) -> DeadLetter:
    try:
        row = json.loads(line)
        payload = row.get("payload")
        time = np.datetime64(str(row["log_time"]).removesuffix("Z"), "ms")
        return DeadLetter(
            epoch=int(row["log_epoch"]),
            partition=int(row["log_partition"]),
            offset=int(row["log_offset"]),
            log_time_ms=int(time.astype(np.int64)),
            reason=str(row["reason"]),
            payload=None if payload is None else b64decode(payload),
            payload_bytes=row.get("payload_bytes"),
        )
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{where}: not a dead letter ({error})"
        raise BadInputError(msg) from error


def letters_of(context: Context, *, unfinished: bool = False) -> Iterator[DeadLetter]:
    """The letters of a workspace: from its files, or from the dead-letter topic.

    Args:
        context: of the workspace.
        unfinished: read files that are still written to, too.
    """
    stream = context.config.stream
    if stream.dead_letter_topic is None:
        folder = context.workspace / "stream" / "dead-letters"
        yield from read_dead_letters(folder, unfinished=unfinished)
        return
    from uic.jobs.stream.letters.topic_reader import read_topic  # noqa: PLC0415 - only with a topic
    from uic.jobs.stream.topics.brokers import brokers_of  # noqa: PLC0415 - only with a topic

    seen: set[tuple[int, int, int]] = set()
    for row in read_topic(brokers_of(stream), stream.dead_letter_topic):
        where = f"topic {stream.dead_letter_topic}, {row.partition}:{row.offset}"
        letter = _letter(row.payload or b"", where)
        if letter.place not in seen:
            seen.add(letter.place)
            yield letter


def sendable(letters: Iterable[DeadLetter]) -> tuple[Outgoing, list[DeadLetter]]:
    """Letters whose user id can be read, as payloads with keys."""
    chosen, users = [], []
    for letter in letters:
        user = _user_of(letter.payload)
        if user is not None:
            chosen.append(letter)
            users.append(user)
    outgoing = Outgoing(
        payloads=[letter.payload or b"" for letter in chosen],
        user_ids=np.array(users, dtype=np.int64),
        log_times_ms=np.array([letter.log_time_ms for letter in chosen], dtype=np.int64),
    )
    return outgoing, chosen


def _user_of(payload: bytes | None) -> int | None:
    try:
        user = json.loads(payload or b"")["user_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return user if type(user) is int and 0 <= user < 2**63 else None


def retried(context: Context) -> set[tuple[int, int, int]]:
    """Places of letters that were sent again before."""
    path = _retried_path(context)
    return {tuple(place) for place in json.loads(path.read_text())} if path.exists() else set()


def note_retried(context: Context, places: set[tuple[int, int, int]]) -> None:
    """Remember which letters were sent again."""
    write_json_atomically(_retried_path(context), sorted(places))


def _retried_path(context: Context) -> Path:
    return context.workspace / "stream" / "retried-letters.json"
