"""What the store knows of a user, for people: header, channels as pictures, nearest items."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.bundles.documents import read_bundle_manifest
from uic.models.errors import UicError
from uic.models.memory.fold import MemoryFolder
from uic.models.memory.network import MemoryState
from uic.models.rankers.mimn import Mimn
from uic.models.records.record import Records, header_view, parts_view
from uic.models.state.part import Asked

SHADES: Final = " ▁▂▃▄▅▆▇█"
# Items that are compared with a channel: a second of work.
MAX_ITEMS: Final = 50_000


@dataclass(frozen=True)
class UserView:
    """One user's memory.

    Args:
        position: epoch, partition, offset of the last folded event.
        last_event: time of the last behaviour, UTC; None where things were only shown.
        events: folded so far.
        bundle_hash: first 8 bytes, hex.
        channels: (slots, width), float32; None where the bundle is not in the workspace, or keeps
            no memory.
        parts: what the exact parts say of the user now, by name; empty for none.
    """

    position: tuple[int, int, int]
    last_event: datetime | None
    events: int
    bundle_hash: str
    channels: NDArray[np.float32] | None
    parts: dict[str, float]


def find_bundle(bundles: Path, hash8: bytes) -> Bundle | None:
    """The bundle of the workspace with this hash, if it is there."""
    for path in sorted(bundles.glob("*/*/manifest.json")):
        try:
            manifest = read_bundle_manifest(path.parent)
        except UicError:
            continue
        if str(manifest["hash"]).startswith(hash8.hex()):
            return load_bundle(path.parent)
    return None


def view_record(record: Records, bundle: Bundle | None) -> UserView:
    """Read one record, (1, record_bytes)."""
    header = header_view(record)[0]
    last_ms = int(header["last_event_time_ms"])
    channels = None
    if bundle is not None and bundle.has_memory:
        state = _state(record, bundle)
        channels = (state.M if state.S is None else state.S)[0].numpy()
    return UserView(
        position=(int(header["epoch"]), int(header["partition"]), int(header["offset"])),
        last_event=datetime.fromtimestamp(last_ms / 1000, UTC) if last_ms else None,
        events=int(header["events"]),
        bundle_hash=bytes(header["bundle"]).hex(),
        channels=channels,
        parts={} if bundle is None else _parts(record, bundle),
    )


def _parts(record: Records, bundle: Bundle) -> dict[str, float]:
    """The features of the user, not of a candidate, as of now."""
    if bundle.state is None:
        return {}
    MemoryFolder(bundle, 1).check(record, "the record")
    now, one = np.array([time.time_ns() // 1_000_000]), np.zeros(1, np.int64)
    states = np.ascontiguousarray(parts_view(record, bundle.state.bytes))
    told = bundle.state.features(states, Asked(one, now, one, one))[0].tolist()
    described = zip(bundle.state.described, told, strict=True)
    return {one.name: value for one, value in described if not one.of_candidate}


def picture(values: Sequence[float], largest: float) -> str:
    """Magnitudes as a row of bars; `largest` is a full one."""
    if largest <= 0:
        return SHADES[0] * len(values)
    levels = [round(min(abs(value) / largest, 1.0) * (len(SHADES) - 1)) for value in values]
    return "".join(SHADES[level] for level in levels)


def nearest_items(
    record: Records, bundle: Bundle, items_file: Path, count: int
) -> list[list[int]] | None:
    """Per channel the items that the readout's attention gives the largest share to it.

    Args:
        record: (1, record_bytes).
        bundle: of the record.
        items_file: `item_id, category_id` of the log's items; the first `MAX_ITEMS` are compared.
        count: items a channel.

    Returns:
        Item ids per channel, best first; empty for a channel that no event has touched. None for
        a model without channels.
    """
    model = bundle.model
    if not isinstance(model, Mimn):
        return None
    state = _state(record, bundle)
    if model.reading.channels is None or state.S is None:
        return None
    items = pq.read_table(items_file).slice(0, MAX_ITEMS)
    ids = items.column("item_id").to_numpy()
    vectors = bundle.embed(ids, items.column("category_id").to_numpy())
    channels = state.S[0]
    slots = channels.shape[0]
    with torch.no_grad():
        scores = model.reading.channels(
            vectors,
            channels,
            torch.arange(len(ids)).repeat_interleave(slots),
            torch.arange(slots).repeat(len(ids)),
        ).view(len(ids), slots)
        shares = scores.softmax(dim=1).numpy()
    touched = channels.abs().sum(1) > 0
    best = np.argsort(-shares, axis=0, kind="stable")[:count]
    return [ids[best[:, at]].tolist() if touched[at] else [] for at in range(slots)]


def _state(record: Records, bundle: Bundle) -> MemoryState:
    # Refuses a record of another width before its numbers are read as something else.
    expected = MemoryFolder(bundle, 1).record_bytes
    if record.shape[1] != expected:
        msg = f"the memory has {record.shape[1]} bytes, bundle {bundle.path} has {expected}"
        raise UicError(msg)
    layout: Any = bundle.memory.layout
    return MemoryState.unpack(record, layout)
