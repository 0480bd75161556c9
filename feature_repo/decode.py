"""From packed values to named numbers, for people and for callers that want lists.

`decode_memories` and `decode_vectors` are the bodies of on-demand feature views in Feast's python
mode: columns in, columns out, None where the entity is unknown. Where the parts of a state lie is
read from the manifests of the workspace's snapshots, by the bundle's hash in the record.
"""

import json
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uic.feature_repo.snapshots.published_values import snapshot_in_force
from uic.feature_repo.store.item_vectors import unpacked_item_vectors
from uic.feature_repo.store.layout import MEMORY, VECTOR_HEADER
from uic.models.published import MANIFEST_NAME
from uic.models.records.record import HEADER, HEADER_BYTES
from uic.models.state.definition import StateDefinition
from uic.models.state.part import Asked

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
WORKSPACE_VARIABLE: Final = "UIC_WORKSPACE"
# Request data of `candidate_state`.
CANDIDATE: Final = ("candidate_item_id", "candidate_category_id")

# Feast changes into the feature repository before it reads the definitions.
START: Final = Path.cwd()


def workspace() -> Path:
    """The workspace of Feast's side: `UIC_WORKSPACE`, else `var`, seen from where it started."""
    return (START / (os.environ.get(WORKSPACE_VARIABLE) or "var")).resolve()


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
    """The memory of a record by name: M (slots, width), S, h, r, g, pool.

    Of a bundle that no snapshot of the workspace was built with, all that there is under `M`. A
    record of exact parts alone has an empty `M`.
    """
    state = np.frombuffer(record, dtype="<f2", offset=HEADER_BYTES)
    known = record_layout(bundle, workspace())
    if known is None:
        return {"M": state[None, :].astype(np.float32)}
    parts: dict[str, NDArray[np.float32]] = {"M": np.zeros((0, 0), np.float32)}
    start = 0
    for name, shape in known.memory:
        size = int(np.prod(shape))
        parts[name] = state[start : start + size].reshape(shape).astype(np.float32)
        start += size
    return parts


def decode_state(inputs: dict[str, list[Any]], *, of_candidate: bool) -> dict[str, list[Any]]:
    """What the exact parts of records say now: a column a feature of any `state.yaml` built here.

    A view has the names of the generation that was live when it was applied; while another takes
    over, records are read by the parts of their own.

    Args:
        inputs: a column `memory` of records; for candidates also `candidate_item_id` and
            `candidate_category_id`.
        of_candidate: the features that differ between candidates, or those of the user.

    Returns:
        Numbers by name, `PART_FEATURE`; None where there is nothing to say, or where a record has
        no such part.
    """
    layouts = _layouts(workspace())
    states = [layout.state for layout in layouts.values() if layout.state is not None]
    names = {
        one.name.replace(".", "_"): None
        for state in states
        for one in state.described
        if one.of_candidate == of_candidate
    }
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row, value in enumerate(inputs["memory"]):
        told: dict[str, float | None] = {}
        if value == FEAST_PROBE:
            told = dict.fromkeys(names, 0.0)
        elif value is not None:
            bundle = bytes(np.frombuffer(value, dtype=HEADER, count=1)[0]["bundle"])
            own = layouts.get(bundle.hex())
            asked = [inputs[name][row] if of_candidate else 0 for name in CANDIDATE]
            if own is not None and own.state is not None and None not in asked:
                numbers = _told(value, own.state, *asked).tolist()
                told = {
                    one.name.replace(".", "_"): None if np.isnan(number) else number
                    for one, number in zip(own.state.described, numbers, strict=True)
                }
        for name, column in columns.items():
            column.append(told.get(name))
    return columns


def _told(value: bytes, state: StateDefinition, item: int, category: int) -> NDArray[np.float32]:
    """All features of a record as of now."""
    now = np.array([time.time_ns() // 1_000_000])
    one = np.zeros(1, np.int64)
    states = np.frombuffer(value[len(value) - state.bytes :], np.uint8).reshape(1, -1)
    told: NDArray[np.float32] = state.features(states, Asked(one, now, one + item, one + category))
    return np.asarray(told[0], np.float32)


@dataclass(frozen=True)
class RecordLayout:
    """How records of a bundle are laid out, as a snapshot's manifest says.

    Attributes:
        memory: names and shapes of the memory's fields, in record order.
        state: the exact parts behind it; None for none.
    """

    memory: tuple[tuple[str, tuple[int, ...]], ...]
    state: StateDefinition | None


def record_layout(bundle: bytes, root: Path) -> RecordLayout | None:
    """The layout of a bundle's records; None if no snapshot of the workspace tells."""
    return _layouts(root).get(bundle.hex())


def _layouts(root: Path) -> dict[str, RecordLayout]:
    """By the hash of a bundle, of all snapshots of a workspace."""
    return _known_layouts(tuple(sorted((root / "memories").glob("generation=*/*/manifest.json"))))


def state_in_force(root: Path) -> StateDefinition | None:
    """The exact parts of the records that are served (`snapshot_in_force`); None for none."""
    folder = snapshot_in_force(root / "memories")
    return None if folder is None else _layout(folder / MANIFEST_NAME).state


@lru_cache(maxsize=4)
def _known_layouts(paths: tuple[Path, ...]) -> dict[str, RecordLayout]:
    known: dict[str, RecordLayout] = {}
    for path in paths:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known[manifest["bundle_hash8"]] = _layout(path)
    return known


def _layout(path: Path) -> RecordLayout:
    manifest = json.loads(path.read_text(encoding="utf-8"))
    fields = tuple((name, tuple(shape)) for name, shape in manifest.get("state", ()))
    parts = manifest.get("parts")
    where = f"{path}: parts"
    return RecordLayout(
        fields, None if parts is None else StateDefinition.of_document(parts, where)
    )


def event_time_ms(value: bytes) -> int:
    """When the last event of a memory was, or when a vector was made; milliseconds since 1970."""
    if value.startswith(MEMORY.start):
        return int.from_bytes(value[24:32], "little", signed=True)
    return int.from_bytes(value[4 : VECTOR_HEADER.itemsize], "big", signed=True)
