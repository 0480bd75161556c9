"""From packed values to named numbers, for people and for callers that want lists.

`decode_memories` and `decode_vectors` are the bodies of on-demand feature views in Feast's python
mode: columns in, columns out, None where the entity is unknown. Where the parts of a state lie is
read from the manifests of the workspace's snapshots, by the bundle's hash in the record.
"""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uic.feature_repo.store.item_vectors import unpacked_item_vectors
from uic.feature_repo.store.layout import MEMORY, VECTOR_HEADER
from uic.models.records.record import HEADER, HEADER_BYTES

# Feast shows a decoder these bytes when a repository is applied, to learn the types of its answers.
FEAST_PROBE: Final = b"hello world"
MEMORY_FIELDS: Final = (
    "channels",
    "slots",
    "epoch",
    "partition",
    "offset",
    "events",
    "last_event_time_ms",
    "bundle",
    "generation",
)
StateFields = tuple[tuple[str, tuple[int, ...]], ...]


# Feast changes into the feature repository before it reads the definitions.
START: Final = Path.cwd()


def workspace() -> Path:
    """The workspace of Feast's side: `UIC_WORKSPACE`, else `var`, seen from where it started."""
    return (START / (os.environ.get("UIC_WORKSPACE") or "var")).resolve()


def decode_memories(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Columns of `MEMORY_FIELDS` from a column `memory` of records.

    `channels` (S) and `slots` (M) are flat lists, row after row; `slots` of the state's whole
    float16 part and no `channels` where no snapshot here tells how the bundle's state is laid out.
    """
    columns: dict[str, list[Any]] = {name: [] for name in MEMORY_FIELDS}
    for value in inputs["memory"]:
        row = _decoded(value)
        for name in MEMORY_FIELDS:
            columns[name].append(row[name])
    return columns


def decode_vectors(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A column `embedding_values` of lists from a column `embedding` of packed item vectors."""
    values: list[Any] = []
    for value in inputs["embedding"]:
        if value is None:
            values.append(None)
        elif value == FEAST_PROBE:
            values.append([0.0])
        else:
            packed = np.frombuffer(value, dtype=np.uint8)[None, :]
            values.append(unpacked_item_vectors(packed, "item_image")[0].tolist())
    return {"embedding_values": values}


def _decoded(value: bytes | None) -> dict[str, Any]:
    if value is None:
        return dict.fromkeys(MEMORY_FIELDS)
    if value == FEAST_PROBE:
        numbers: dict[str, Any] = dict.fromkeys(MEMORY_FIELDS, 0)
        return numbers | {"channels": [0.0], "slots": [0.0], "bundle": ""}
    header = np.frombuffer(value, dtype=HEADER, count=1)[0]
    bundle = bytes(header["bundle"])
    parts = state_parts(value, bundle)
    return {
        "channels": parts.get("S", np.zeros((0, 0))).ravel().tolist(),
        "slots": parts["M"].ravel().tolist(),
        "epoch": int(header["epoch"]),
        "partition": int(header["partition"]),
        "offset": int(header["offset"]),
        "events": int(header["events"]),
        "last_event_time_ms": int(header["last_event_time_ms"]),
        "bundle": bundle.hex(),
        "generation": int(header["generation"]),
    }


def state_parts(record: bytes, bundle: bytes) -> dict[str, NDArray[np.float32]]:
    """The parts of a record's state by name: M (slots, width), S, h, r, g, pool.

    Of a bundle that no snapshot of the workspace was built with, the whole state under `M`.
    """
    state = np.frombuffer(record, dtype="<f2", offset=HEADER_BYTES).astype(np.float32)
    fields = state_fields(bundle, workspace())
    parts: dict[str, NDArray[np.float32]] = {}
    start = 0
    for name, shape in fields:
        size = int(np.prod(shape))
        parts[name] = state[start : start + size].reshape(shape)
        start += size
    return parts if start == len(state) else {"M": state[None, :]}


def state_fields(bundle: bytes, root: Path) -> StateFields:
    """Names and shapes of a bundle's state, in record order; empty if no snapshot tells."""
    paths = tuple(sorted((root / "memories").glob("generation=*/*/manifest.json")))
    return _known_fields(paths).get(bundle.hex(), ())


@lru_cache(maxsize=4)
def _known_fields(paths: tuple[Path, ...]) -> dict[str, StateFields]:
    known: dict[str, StateFields] = {}
    for path in paths:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        fields = tuple((name, tuple(shape)) for name, shape in manifest.get("state", ()))
        if fields:
            known[manifest["bundle_hash8"]] = fields
    return known


def event_time_ms(value: bytes) -> int:
    """When the last event of a memory was, or when a vector was made; milliseconds since 1970."""
    if value.startswith(MEMORY.start):
        return int.from_bytes(value[24:32], "little", signed=True)
    return int.from_bytes(value[4 : VECTOR_HEADER.itemsize], "big", signed=True)
