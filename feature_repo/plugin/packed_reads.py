"""Reading a packed view through Feast: from a request's entities to Feast's response."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feast import FeatureView, utils
from feast.metrics import track_feature_statuses
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from google.protobuf.timestamp_pb2 import Timestamp

from uic.feature_repo.plugin.packed_view import PackedView
from uic.feature_repo.plugin.pinned import pinned_generation
from uic.feature_repo.store.errors import EmptyStoreError, typed_errors
from uic.feature_repo.store.item_vectors import ITEM_VECTOR
from uic.feature_repo.store.layout import NO_GENERATION
from uic.feature_repo.store.live import LivePointer
from uic.feature_repo.store.packed import PackedStore

# (n,) values as Redis has them; None where there is nothing.
Values = Sequence[bytes | None]
_NULL = ValueProto()
_NO_TIME = Timestamp()


@dataclass
class OpenedView:
    """One packed view in use; `pointer` is None for a view without generations."""

    view: PackedView
    store: PackedStore
    pointer: LivePointer | None

    def values(self, ids: Sequence[int | None]) -> Values:
        """The stored values of entities, of the live (or pinned) generation; None for None.

        `store.keys_per_read` in one MGET, so that other readers wait for no more than these.

        Raises:
            EmptyStoreError: no memories are live.
        """
        return values_of([(self, ids)])[0]

    async def values_async(self, client: Any, ids: Sequence[int | None]) -> Values:
        """As `values`, with an asynchronous client."""
        return (await values_of_async([(self, ids)], client))[0]

    @property
    def asks_pointer(self) -> bool:
        """Whether the next read asks first which generation is live."""
        return self.pointer is not None and self._generation() is None and self.pointer.due

    def _generation(self) -> int | None:
        """The generation if it needs no pointer: pinned, or of a view without generations."""
        return NO_GENERATION if self.pointer is None else pinned_generation(self.view.name)

    def keys_of(self, ids: Sequence[int | None]) -> dict[int, bytes]:
        """Keys of distinct entities; none where no item version is live: no item has a vector."""
        generation = self._generation()
        if generation is None and self.pointer is not None:
            try:
                generation = self.pointer.number()
            except EmptyStoreError:
                if self.view.layout is not ITEM_VECTOR:
                    raise
                return {}
        distinct = [entity for entity in dict.fromkeys(ids) if entity is not None]
        keys = self.view.keys.entities(generation or NO_GENERATION, distinct)
        return dict(zip(distinct, keys, strict=True))


# Entities asked of each of some views.
Asked = Sequence[tuple[OpenedView, Sequence[int | None]]]


def values_of(asked: Asked) -> list[Values]:
    """The stored values of several views, of one store, in one MGET where they are few enough.

    A ranking request asks for a user's memory and features: a round trip each would be the larger
    part of both.

    Raises:
        EmptyStoreError: no memories are live.
    """
    store = asked[0][0].store
    values: list[bytes | None] = []
    with typed_errors(store.address):
        for opened, _ in asked:
            if opened.asks_pointer and opened.pointer is not None:
                opened.pointer.accept(*opened.pointer.question(store.client).execute())
        keys = [opened.keys_of(ids) for opened, ids in asked]
        for part in _parts(keys, store.keys_per_read):
            values += store.client.mget(part)
    return _apart(asked, keys, values)


async def values_of_async(asked: Asked, client: Any) -> list[Values]:
    """As `values_of`, with an asynchronous client."""
    store = asked[0][0].store
    values: list[bytes | None] = []
    with typed_errors(store.address):
        for opened, _ in asked:
            if opened.asks_pointer and opened.pointer is not None:
                opened.pointer.accept(*await opened.pointer.question(client).execute())
        keys = [opened.keys_of(ids) for opened, ids in asked]
        for part in _parts(keys, store.keys_per_read):
            values += await client.mget(part)
    return _apart(asked, keys, values)


def _parts(keys: Sequence[Mapping[int, bytes]], size: int) -> Iterator[list[bytes]]:
    names = [name for part in keys for name in part.values()]
    for at in range(0, len(names), size):
        yield names[at : at + size]


def _apart(asked: Asked, keys: Sequence[Mapping[int, bytes]], values: Values) -> list[Values]:
    """Values of all views, taken apart by view."""
    apart, start = [], 0
    for (_, ids), part in zip(asked, keys, strict=True):
        apart.append(_spread(part, values[start : start + len(part)], ids))
        start += len(part)
    return apart


def _spread(keys: Mapping[int, bytes], values: Values, ids: Sequence[int | None]) -> Values:
    """Values of distinct ids for all ids: a request names its one user beside every item."""
    if len(keys) == len(ids):
        return values
    value_of: dict[int | None, bytes | None] = dict(zip(keys, values, strict=True))
    return [value_of.get(entity) for entity in ids]


def entity_ids(
    table: FeatureView, view: PackedView, join_key_values: Any, join_keys: Any
) -> list[int | None]:
    """The entity ids of a request, in its order; None for a null.

    Raises:
        KeyError: the request does not name this view's entity.
        EntityIdError: a key is not an integer.
    """
    columns = utils._get_table_entity_values(table, join_keys, join_key_values)  # noqa: SLF001 - the hook's own helper
    if not columns:
        wanted = [column.name for column in table.entity_columns]
        msg = (
            f"Missing join key values for {table.name}: found {list(join_key_values)}, "
            f"expected {wanted}"
        )
        raise KeyError(msg)  # as Feast's own stores do
    [values] = columns.values()
    return [view.id_of(value) for value in values]


def append_answer(  # noqa: PLR0917 - the last three as Feast has them
    table: FeatureView,
    view: PackedView,
    values: Values,
    response: GetOnlineFeaturesResponse,
    full_feature_names: bool,  # noqa: FBT001
    with_version: bool,  # noqa: FBT001
) -> None:
    """Append a view's one feature to Feast's response, a row for each entity asked for."""
    name = (
        f"{table.projection.name_to_use()}__{view.feature}" if full_feature_names else view.feature
    )
    metadata = response.metadata
    metadata.feature_names.val.append(name)
    known = table.projection.name_alias or table.projection.name
    if with_version and known not in [entry.name for entry in metadata.feature_view_metadata]:
        entry = metadata.feature_view_metadata.add()
        entry.name = known
        entry.version = getattr(table, "current_version_number", 0) or 0
    present, absent = FieldStatus.PRESENT, FieldStatus.NOT_FOUND
    response.results.append(
        GetOnlineFeaturesResponse.FeatureVector(
            values=[
                _NULL if value is None else ValueProto(bytes_val=view.unpacked(value))
                for value in values
            ],
            statuses=[absent if value is None else present for value in values],
            event_timestamps=[
                _NO_TIME if value is None else view.event_time(value) for value in values
            ],
        )
    )
    found = sum(value is not None for value in values)
    track_feature_statuses(table.name, found, len(values) - found)
