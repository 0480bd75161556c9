"""Names of keys, and the two kinds of packed value.

A packed view is one Redis string per entity, `uic:{project}:{view}:{generation}:` + the id as
8 big-endian bytes. Beside them, per view:

| key | holds |
|---|---|
| `uic:{project}:{view}:generations` | set of generation numbers |
| `uic:{project}:{view}:generation:{n}` | hash: state, rows, …
(`uic.feature_repo.store.generations`) |
| `uic:{project}:{view}:markers:{n}` | hash: `{epoch}:{partition}` -> last folded offset |
| `uic:{project}:{view}:live` | hash: the live pointer |
| `uic:{project}:{view}:forgotten` | set of ids (8 bytes) that were deleted on request |

Beside the views, `uic:{project}:workspace` is a hash of which workspace writes into the project
(`uic.feature_repo.store.claim`).

`{view}` is the view's tag `key_name`, if it has one, else its name. Memories have a short one, for
a key of 22 bytes or fewer takes 16 bytes less of Redis' memory than a longer one.

A **memory** is the record of `uic.models.records.record`. A **vector** (features of an item) is 12
bytes, `UV`, version, event time in milliseconds as 8 big-endian bytes, and then the feature's own
bytes; its position is the event time, so that a late load cannot undo a newer one either. A
**sequence** (`uic.models.records.sequence_ring`) stands behind the same 12 bytes; its position is
that of its last event. A user's **features** (`uic.models.features.rows`) do, too; the time is when
they were written.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uic.models.records.record import (
    HEADER_BYTES,
    POSITION_FIRST_BYTE,
    RECORD_MAGIC,
    RECORD_VERSION,
)
from uic.models.records.sequence_ring import RING_HEADER, RING_POSITION_FIRST_BYTE

MEMORY_VIEW: Final = "user_interest"
MEMORY_FEATURE: Final = "memory"
MEMORY_KEY_NAME: Final = "m"
SEQUENCE_KEY_NAME: Final = "s"
USER_FEATURES_VIEW: Final = "user_features"
USER_FEATURES_FEATURE: Final = "features"
USER_FEATURES_KEY_NAME: Final = "f"
ID_BYTES: Final = 8
VECTOR_MAGIC: Final = b"UV"
VECTOR_VERSION: Final = 1
VECTOR_HEADER: Final = np.dtype([("magic", "S2"), ("version", "<u2"), ("event_time_ms", ">i8")])
# The generation of views that have none: their values are replaced, never rebuilt beside others.
NO_GENERATION: Final = 0


@dataclass(frozen=True)
class PackedLayout:
    """How Redis tells a value of ours, and where it finds the position.

    Args:
        start: first bytes of every value: magic and version.
        position_first_byte: 0-based.
        position_format: of Lua's `struct`; three numbers and a partition, or two numbers.
        header_bytes: bytes before the payload.
    """

    start: bytes
    position_first_byte: int
    position_format: str
    header_bytes: int


MEMORY: Final = PackedLayout(
    start=RECORD_MAGIC + RECORD_VERSION.to_bytes(2, "little"),
    position_first_byte=POSITION_FIRST_BYTE,
    position_format=">I4I4I4<I4",
    header_bytes=HEADER_BYTES,
)
VECTOR: Final = PackedLayout(
    start=VECTOR_MAGIC + VECTOR_VERSION.to_bytes(2, "little"),
    position_first_byte=4,
    position_format=">I4I4",
    header_bytes=VECTOR_HEADER.itemsize,
)
SEQUENCE: Final = PackedLayout(
    start=VECTOR.start,
    position_first_byte=VECTOR_HEADER.itemsize + RING_POSITION_FIRST_BYTE,
    position_format=MEMORY.position_format,
    header_bytes=VECTOR_HEADER.itemsize + RING_HEADER.itemsize,
)


@dataclass(frozen=True)
class ViewKeys:
    """The keys of one packed view of one project; `view` is the name in keys."""

    project: str
    view: str

    @property
    def _root(self) -> str:
        return f"uic:{self.project}:{self.view}"

    @classmethod
    def of_memories(cls, project: str) -> Self:
        """The keys of `user_interest`."""
        return cls(project, MEMORY_KEY_NAME)

    @classmethod
    def of_sequences(cls, project: str) -> Self:
        """The keys of `user_sequence`."""
        return cls(project, SEQUENCE_KEY_NAME)

    @classmethod
    def of_user_features(cls, project: str) -> Self:
        """The keys of `user_features`."""
        return cls(project, USER_FEATURES_KEY_NAME)

    def prefix(self, generation: int) -> bytes:
        """What comes before the id in the key of an entity."""
        return f"{self._root}:{generation}:".encode()

    def entities(self, generation: int, ids: ArrayLike) -> list[bytes]:
        """The keys of entities, in the order of `ids` (n,), int64."""
        prefix = self.prefix(generation)
        packed = big_endian(ids)
        return [prefix + packed[at : at + ID_BYTES] for at in range(0, len(packed), ID_BYTES)]

    def generation(self, generation: int) -> str:
        """Hash of one generation."""
        return f"{self._root}:generation:{generation}"

    def markers(self, generation: int) -> str:
        """Hash of how far each partition is folded."""
        return f"{self._root}:markers:{generation}"

    @property
    def generations(self) -> str:
        """Set of the generations there are."""
        return f"{self._root}:generations"

    @property
    def everything(self) -> str:
        """Pattern of every key of the view."""
        return f"{self._root}:*"

    @property
    def live(self) -> str:
        """Hash of the live pointer."""
        return f"{self._root}:live"

    @property
    def forgotten(self) -> str:
        """Set of ids that must never come back."""
        return f"{self._root}:forgotten"


def claim_key(project: str) -> str:
    """Hash of which workspace writes into a project."""
    return f"uic:{project}:workspace"


def big_endian(ids: ArrayLike) -> bytes:
    """Ids, (n,) int64, as 8 big-endian bytes each."""
    return np.asarray(ids, dtype=np.int64).astype(">i8").tobytes()


def ids_of_keys(keys: list[bytes]) -> NDArray[np.int64]:
    """The ids at the ends of entity keys."""
    packed = b"".join(key[-ID_BYTES:] for key in keys)
    return np.frombuffer(packed, dtype=">i8").astype(np.int64)
