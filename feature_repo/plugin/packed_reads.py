"""Reading a packed view through Feast: from a request's entities to Feast's response."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feast import FeatureView, utils
from feast.metrics import track_feature_statuses
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from google.protobuf.timestamp_pb2 import Timestamp

from uic.feature_repo.plugin.packed_view import PackedView, is_packed
from uic.feature_repo.plugin.pinned import pinned_generation
from uic.feature_repo.store.errors import EmptyStoreError, typed_errors
from uic.feature_repo.store.item_vectors import ITEM_VECTOR
from uic.feature_repo.store.layout import NO_GENERATION
from uic.feature_repo.store.live import EMPTY, LivePointer
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

    def values(self, ids: Sequence[int]) -> Values:
        """The stored values of entities, of the live (or pinned) generation, in one MGET."""
        generation = self._pinned()
        if generation is None and self.pointer is not None:
            try:
                generation = self.pointer.resolve()
            except EmptyStoreError:
                return self._nothing(ids)
        if not ids:
            return []
        generation = NO_GENERATION if generation is None else generation
        distinct = list(dict.fromkeys(ids))
        with typed_errors(self.store.address):
            values: Values = self.store.client.mget(self.view.keys.entities(generation, distinct))
        return _spread(distinct, values, ids)

    async def values_async(self, client: Any, ids: Sequence[int]) -> Values:
        """As `values`, with an asynchronous client."""
        with typed_errors(self.store.address):
            generation = self._pinned()
            if generation is None and self.pointer is not None:
                if self.pointer.due:
                    pipe = client.pipeline(transaction=False)
                    pipe.hgetall(self.view.keys.live)
                    pipe.time()
                    self.pointer.accept(*await pipe.execute())
                try:
                    generation = self.pointer.number()
                except EmptyStoreError:
                    return self._nothing(ids)
            if not ids:
                return []
            generation = NO_GENERATION if generation is None else generation
            distinct = list(dict.fromkeys(ids))
            values: Values = await client.mget(self.view.keys.entities(generation, distinct))
        return _spread(distinct, values, ids)

    def _pinned(self) -> int | None:
        return None if self.pointer is None else pinned_generation(self.view.name)

    def _nothing(self, ids: Sequence[int]) -> Values:
        """Where no item version is live, no item has a vector; without memories it is an error.

        Raises:
            EmptyStoreError: always, for memories.
        """
        if self.view.layout is ITEM_VECTOR:
            return [None] * len(ids)
        msg = EMPTY.format(address=self.store.address)
        raise EmptyStoreError(msg)


def _spread(distinct: Sequence[int], values: Values, ids: Sequence[int]) -> Values:
    """Values of distinct ids for all ids: a request names its one user beside every item."""
    if len(distinct) == len(ids):
        return values
    value_of = dict(zip(distinct, values, strict=True))
    return [value_of[entity] for entity in ids]


def split_views(grouped_refs: Any) -> tuple[list[Any], list[Any]]:
    """Feast's (view, features) pairs: packed ones, ordinary ones."""
    packed = [(table, features) for table, features in grouped_refs if is_packed(table)]
    ordinary = [(table, features) for table, features in grouped_refs if not is_packed(table)]
    return packed, ordinary


def entity_ids(table: FeatureView, join_key_values: Any, join_keys: Any) -> list[int]:
    """The entity ids of a request, in its order."""
    columns = utils._get_table_entity_values(table, join_keys, join_key_values)  # noqa: SLF001 - the hook's own helper
    if not columns:
        msg = f"Missing join key values for {table.name}: {list(join_key_values)}"
        raise KeyError(msg)  # as Feast's own stores do
    [values] = columns.values()
    return [value.int64_val for value in values]


def append_answer(
    table: FeatureView,
    view: PackedView,
    values: Values,
    response: GetOnlineFeaturesResponse,
    *,
    full_feature_names: bool,
    with_version: bool,
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
