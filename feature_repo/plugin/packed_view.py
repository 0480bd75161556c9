"""A Feast view with the packed layout: from Feast's rows to records and back.

Everything that Feast's many doors have in common is here; `uic.feature_repo.online_store`
says which door leads where.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import numpy as np
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_NAME
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from uic.feature_repo.store.errors import ForeignValueError, StoreError, StoreSettingError
from uic.feature_repo.store.item_vectors import ITEM_VECTOR, ITEM_VIEW, item_vector_headers
from uic.feature_repo.store.layout import (
    MEMORY,
    MEMORY_KEY_NAME,
    SEQUENCE,
    SEQUENCE_KEY_NAME,
    USER_FEATURES_KEY_NAME,
    VECTOR,
    VECTOR_HEADER,
    VECTOR_MAGIC,
    VECTOR_VERSION,
    PackedLayout,
    ViewKeys,
)
from uic.models.records.record import RecordFormatError, Records, header_view


class EntityIdError(StoreError):
    """An entity's key is not an integer: it names no entity of a packed view."""


LAYOUT_TAG: Final = "layout"
PACKED: Final = "packed"
_LAYOUTS: Final = {
    "memory": MEMORY,
    "vector": VECTOR,
    "sequence": SEQUENCE,
    "item_vector": ITEM_VECTOR,
}
# Values that say themselves which generation they belong to.
_OF_GENERATIONS: Final = ("memory", "item_vector")
# A key name is part of a pattern that SCAN takes, and ends at the next colon.
_KEY_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
# Names under which this project's own programs keep values, of one layout each.
_OWN_KEY_NAMES: Final = {
    MEMORY_KEY_NAME: MEMORY,
    SEQUENCE_KEY_NAME: SEQUENCE,
    ITEM_VIEW: ITEM_VECTOR,
    USER_FEATURES_KEY_NAME: VECTOR,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def is_packed(view: Any) -> bool:
    """Whether a feature view has the packed layout."""
    return bool(view.tags.get(LAYOUT_TAG) == PACKED)


def keys_of(project: str, view: Any) -> ViewKeys | None:
    """The keys of a packed view; None if its key name is no word, which no apply takes."""
    key_name = view.tags.get("key_name", view.name)
    return ViewKeys(project, key_name) if _KEY_NAME.fullmatch(key_name) else None


@dataclass(frozen=True)
class PackedView:
    """What the store needs of one packed feature view.

    Args:
        name: of the view.
        feature: its one feature.
        keys: in Redis.
        layout: of the values.
        has_generations: whether its values belong to generations (memories and item vectors do).
    """

    name: str
    feature: str
    keys: ViewKeys
    layout: PackedLayout
    has_generations: bool

    @classmethod
    def of(cls, project: str, view: Any) -> "PackedView":
        """Read a feature view's tags and fields.

        Raises:
            StoreSettingError: it could lose values silently, or does not fit the layout.
        """
        name = view.name
        kind = view.tags.get("packed_as", "memory")
        features = [field.name for field in view.features]
        if kind not in _LAYOUTS:
            _refuse(name, f"tag packed_as is {kind!r}", f"one of {', '.join(_LAYOUTS)}")
        if view.ttl is not None and view.ttl != timedelta(0):
            _refuse(name, f"ttl is {view.ttl}", "0: values that expire are lost silently")
        if len(features) != 1 or str(view.features[0].dtype) != "Bytes":
            _refuse(name, f"features are {features}", "one feature of type Bytes")
        columns = [(column.name, str(column.dtype)) for column in view.entity_columns]
        if list(view.entities) == [DUMMY_ENTITY_NAME] or len(columns) != 1:
            found = [column for column, _ in columns if column != DUMMY_ENTITY_ID]
            _refuse(name, f"entities are {found}", "one entity")
        [(column, dtype)] = columns
        if dtype != "Int64":
            _refuse(name, f"entity {column} is {dtype}", "one of type Int64 (value_type INT64)")
        key_name = view.tags.get("key_name", name)
        keys = keys_of(project, view)
        if keys is None:
            _refuse(name, f"key_name is {key_name!r}", "letters, digits and underscores")
        if _OWN_KEY_NAMES.get(key_name, _LAYOUTS[kind]) is not _LAYOUTS[kind]:
            _refuse(name, f"key_name is {key_name!r}, which is this project's own", "another one")
        return cls(
            name=name,
            feature=features[0],
            keys=keys,
            layout=_LAYOUTS[kind],
            has_generations=kind in _OF_GENERATIONS,
        )

    def check_features(self, asked: Sequence[str] | None) -> None:
        """Refuse features that the view does not have.

        Raises:
            StoreSettingError: it has another one.
        """
        other = sorted(set(asked or ()) - {self.feature})
        if other:
            msg = f"feature view {self.name}: no feature {', '.join(other)}; it has {self.feature}"
            raise StoreSettingError(msg)

    def id_of(self, value: ValueProto) -> int | None:
        """The id in an entity's key, None for a null; reading and writing ask nothing else.

        Raises:
            EntityIdError: the key is not an integer.
        """
        # A field that is not set reads as 0, and 0 is a user.
        kind = value.WhichOneof("val")
        if kind in (None, "null_val"):
            return None
        if kind not in ("int64_val", "int32_val"):
            msg = f"{self.name}: an entity key of type {kind}, expected an int64 id"
            raise EntityIdError(msg)
        return int(getattr(value, kind))

    def _id_to_write(self, value: ValueProto) -> int:
        found = self.id_of(value)
        if found is None:
            msg = f"{self.name}: an entity key that is null, expected an int64 id"
            raise EntityIdError(msg)
        return found

    def packed(self, rows: Sequence[tuple[Any, Any, datetime, Any]]) -> "PackedRows":
        """Feast's rows (entity key, values by feature, event time, created) as one array.

        Raises:
            RecordFormatError: a row has no value, or not the width of the others.
            EntityIdError: a row is of no entity.
        """
        ids = np.array([self._id_to_write(row[0].entity_values[0]) for row in rows], np.int64)
        values = [row[1][self.feature].bytes_val for row in rows]
        least = self.layout.header_bytes if self.has_generations else 1
        width = len(values[0]) if values else least
        other = next((value for value in values if len(value) != width or not value), None)
        if other is not None or width < least:
            size = width if other is None else len(other)
            msg = f"{self.name}: a value of {size} bytes among values of {width} bytes"
            raise RecordFormatError(msg)
        array = np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), width)
        if self.has_generations:
            self._check(array)
            return PackedRows(ids, array, self.layout)
        return PackedRows(ids, with_vector_headers(array, [_milliseconds(row[2]) for row in rows]))

    def _check(self, values: Records) -> None:
        """Refuse values of another layout before any of them is written."""
        start = np.frombuffer(self.layout.start, dtype=np.uint8)
        wrong = np.flatnonzero((values[:, : len(start)] != start).any(axis=1))
        if wrong.size:
            found = bytes(values[wrong[0], :8])
            msg = f"{self.name}: a value starts with {found!r}, expected {self.layout.start!r}"
            raise RecordFormatError(msg)

    def unpacked(self, value: bytes) -> bytes:
        """The feature's bytes of a stored value.

        Raises:
            ForeignValueError: it is not a value of ours.
        """
        if not value.startswith(self.layout.start):
            msg = (
                f"a value of {self.name} starts with {value[:8]!r}, expected "
                f"{self.layout.start!r}; it is not ours, or of a newer version"
            )
            raise ForeignValueError(msg)
        return value if self.has_generations else value[VECTOR_HEADER.itemsize :]

    def event_time(self, value: bytes) -> Timestamp:
        """When a stored value was true: a memory's last event, a vector's own time."""
        if self.layout is MEMORY:
            milliseconds = int.from_bytes(value[24:32], "little", signed=True)
        elif self.layout is ITEM_VECTOR:
            milliseconds = int.from_bytes(value[8:16], "big", signed=True)
        else:
            milliseconds = int.from_bytes(value[4:12], "big", signed=True)
        return Timestamp(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)

    def row(self, value: bytes | None) -> tuple[datetime | None, dict[str, ValueProto] | None]:
        """A stored value as Feast's `online_read` returns it."""
        if value is None:
            return None, None
        time = self.event_time(value).ToDatetime(tzinfo=UTC)
        return time, {self.feature: ValueProto(bytes_val=self.unpacked(value))}


@dataclass(frozen=True)
class PackedRows:
    """Rows to write: ids (n,) int64 and values (n, width) uint8."""

    ids: NDArray[np.int64]
    values: Records
    layout: PackedLayout = VECTOR

    def by_generation(self) -> list[tuple[int, "PackedRows"]]:
        """Values by the generation in their headers."""
        if not len(self.ids):
            return []
        headers = value_headers(self.layout, self.values)
        numbers = headers["generation"].astype(np.int64)
        parts = []
        for number in np.unique(numbers).tolist():
            chosen = numbers == number
            part = PackedRows(self.ids[chosen], self.values[chosen], self.layout)
            parts.append((number, part))
        return parts


def value_headers(layout: PackedLayout, values: Records) -> NDArray[np.void]:
    """Headers of values that belong to generations, with `generation` and `bundle`, (n,)."""
    return item_vector_headers(values) if layout is ITEM_VECTOR else header_view(values)


def with_vector_headers(payload: Records, event_times_ms: Sequence[int]) -> Records:
    """Vectors as they are stored.

    Args:
        payload: (n, bytes), uint8.
        event_times_ms: (n,), milliseconds since 1970 UTC, not before.
    """
    values = np.zeros((len(payload), VECTOR_HEADER.itemsize + payload.shape[1]), dtype=np.uint8)
    header = values[:, : VECTOR_HEADER.itemsize].view(VECTOR_HEADER)[:, 0]
    header["magic"], header["version"] = VECTOR_MAGIC, VECTOR_VERSION
    header["event_time_ms"] = event_times_ms
    values[:, VECTOR_HEADER.itemsize :] = payload
    return values


def _milliseconds(time: datetime) -> int:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)


def _refuse(view: str, found: str, expected: str) -> NoReturn:
    msg = f"feature view {view}: {found}, a packed view needs {expected}"
    raise StoreSettingError(msg)
