"""Takes the payloads of users out of the archive and out of dead letters; their places stay.

A place without a payload is refused by the parser as malformed, in the stream's replay and in a
compaction alike, so offsets go on without a hole.
"""

from collections.abc import Container
from pathlib import Path

import msgspec

from uic.models.published import replacement


class _Line(msgspec.Struct, omit_defaults=True):
    payload: bytes | None
    log_partition: int
    log_offset: int
    log_time: str
    dt: str | None = None
    part: int | None = None
    reason: str | None = None
    log_epoch: int | None = None
    payload_bytes: int | None = None


class _User(msgspec.Struct):
    user_id: int


_LINE = msgspec.json.Decoder(_Line)
_USER = msgspec.json.Decoder(_User)


def erase_payloads(path: Path, users: Container[int]) -> int:
    """Write a file of JSON lines anew without the payloads of `users`; how many went.

    A file without any stays as it is. The replacement is one rename.
    """
    lines, gone = [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        if _user_of(line) in users:
            row = _LINE.decode(line)
            row.payload, row.payload_bytes = None, None
            lines.append(msgspec.json.encode(row) + b"\n")
            gone += 1
        else:
            lines.append(line)
    if gone:
        with replacement(path) as draft:
            draft.write_bytes(b"".join(lines))
    return gone


def _user_of(line: bytes) -> int | None:
    try:
        payload = _LINE.decode(line).payload
        return None if payload is None else _USER.decode(payload).user_id
    except (msgspec.MsgspecError, ValueError):
        return None
