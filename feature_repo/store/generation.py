"""One generation as the store knows it, and its form in Redis."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from uic.feature_repo.store.markers import NO_TIME, marker_text

_EPOCH: Final = "epoch:"
Positions = Mapping[int, Mapping[int, int]]  # epoch -> partition -> offset of the last event


class State(StrEnum):
    """Where a generation stands."""

    LOADING = "loading"
    READY = "ready"
    LIVE = "live"
    RETIRED = "retired"
    DROPPING = "dropping"


@dataclass(frozen=True)
class Generation:
    """What the store knows of one generation.

    Args:
        number: 1 to 2^32 - 1, as in the records' headers.
        state: where it stands.
        rows: users in the store.
        rows_expected: users of the snapshot that it was loaded from.
        bundle: first 8 bytes of the hash of the bundle that folds it.
        bundle_name: `model/version`, for people.
        record_bytes: width of a memory.
        positions: last event per epoch and partition that the snapshot has folded.
        snapshot: name of the snapshot (`generation=001/dt=…`).
        exclude: rules for what is left out (`uic.pipelines.memories.exclude`), as JSON.
        log_times: largest log time up to the positions, milliseconds; empty in older snapshots.
        epochs: names of the log's epochs by number, as they were when it was folded; those of
            older snapshots and stores are not known.
    """

    number: int
    rows_expected: int
    bundle: bytes
    bundle_name: str
    record_bytes: int
    positions: Positions
    snapshot: str
    exclude: Mapping[str, Any] = field(default_factory=dict)
    log_times: Positions = field(default_factory=dict)
    epochs: Mapping[int, str] = field(default_factory=dict)
    state: State = State.LOADING
    rows: int = 0


def positions_of(document: Mapping[str, Mapping[str, int]]) -> dict[int, dict[int, int]]:
    """Positions from JSON, whose keys are texts."""
    return {
        int(epoch): {int(partition): int(offset) for partition, offset in partitions.items()}
        for epoch, partitions in document.items()
    }


def positions_json(positions: Positions) -> dict[str, dict[str, int]]:
    """Positions as JSON has them."""
    return {
        str(epoch): {str(partition): offset for partition, offset in partitions.items()}
        for epoch, partitions in positions.items()
    }


def marker_fields(generation: Generation) -> dict[str, str]:
    """The markers' hash of a generation as its snapshot left it."""
    return {
        f"{epoch}:{partition}": marker_text(
            offset, generation.log_times.get(epoch, {}).get(partition, NO_TIME)
        )
        for epoch, partitions in generation.positions.items()
        for partition, offset in partitions.items()
    }


def to_fields(generation: Generation) -> dict[str, Any]:
    """The hash of a generation as it is registered."""
    return {
        "state": State.LOADING,
        "rows_expected": generation.rows_expected,
        "bundle": generation.bundle,
        "bundle_name": generation.bundle_name,
        "record_bytes": generation.record_bytes,
        "positions": json.dumps(positions_json(generation.positions), sort_keys=True),
        "log_times": json.dumps(positions_json(generation.log_times), sort_keys=True),
        "snapshot": generation.snapshot,
        "exclude": json.dumps(generation.exclude, sort_keys=True),
        **epoch_fields(generation.epochs),
    }


def epoch_fields(names: Mapping[int, str]) -> dict[str, str]:
    """The fields of a generation's hash that name epochs; one each, so that others stay."""
    return {f"{_EPOCH}{number}": name for number, name in sorted(names.items())}


def from_fields(number: int, fields: Mapping[bytes, bytes]) -> Generation:
    """A generation from its hash."""
    return Generation(
        number=number,
        rows_expected=int(fields[b"rows_expected"]),
        bundle=fields[b"bundle"],
        bundle_name=fields[b"bundle_name"].decode(),
        record_bytes=int(fields[b"record_bytes"]),
        positions=positions_of(json.loads(fields[b"positions"])),
        log_times=positions_of(json.loads(fields.get(b"log_times", b"{}"))),
        snapshot=fields[b"snapshot"].decode(),
        exclude=json.loads(fields[b"exclude"]),
        state=State(fields[b"state"].decode()),
        rows=int(fields[b"rows"]),
        epochs={
            int(name.removeprefix(_EPOCH.encode())): text.decode()
            for name, text in fields.items()
            if name.startswith(_EPOCH.encode())
        },
    )
