"""What Feast knows: entities, feature views and feature services. `feast apply` takes it as it is.

A view tagged `layout: packed` is kept by `UicOnlineStore` as one Redis string per entity; it has
one feature, of type Bytes, and no time to live. The sources are stable paths of the workspace:
`memories/current` and `item_images/current` point to what was last built, or is being loaded.
"""

import inspect
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import (
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RequestSource,
)
from feast.on_demand_feature_view import OnDemandFeatureView, on_demand_feature_view
from feast.types import Array, Bytes, Float32, Float64, Int64, String
from feast.value_type import ValueType

from uic.feature_repo.decode import CANDIDATE, state_in_force, workspace
from uic.feature_repo.store.item_vectors import ITEM_VIEW
from uic.feature_repo.store.layout import (
    MEMORY_FEATURE,
    MEMORY_KEY_NAME,
    MEMORY_VIEW,
    USER_FEATURES_FEATURE,
    USER_FEATURES_KEY_NAME,
    USER_FEATURES_VIEW,
)
from uic.feature_repo.user_features import PUBLISHED, USER_ROWS_PUSH

NEVER = timedelta(0)


# Feast keeps the source of these two functions in its registry, so each brings its own import.
def _decode_memories(inputs: dict[str, Any]) -> dict[str, Any]:
    from uic.feature_repo.decode import decode_memories  # noqa: PLC0415

    return decode_memories(inputs)


def _decode_user_state(inputs: dict[str, Any]) -> dict[str, Any]:
    from uic.feature_repo.decode import decode_state  # noqa: PLC0415 - see above: its own

    return decode_state(inputs, of_candidate=False)


def _decode_candidate_state(inputs: dict[str, Any]) -> dict[str, Any]:
    from uic.feature_repo.decode import decode_state  # noqa: PLC0415 - see above: its own

    return decode_state(inputs, of_candidate=True)


def _decode_vectors(inputs: dict[str, Any]) -> dict[str, Any]:
    from uic.feature_repo.decode import decode_vectors  # noqa: PLC0415

    return decode_vectors(inputs)


user = Entity(
    name="user",
    join_keys=["user_id"],
    value_type=ValueType.INT64,
    description="A user whose behaviours are in the event log.",
)
item = Entity(
    name="item",
    join_keys=["item_id"],
    value_type=ValueType.INT64,
    description="Something that can be shown and clicked.",
)


def packed_view(  # noqa: PLR0917 - a row of a table
    name: str,
    entity: Entity,
    value: Field,
    source: tuple[str, Path],
    tags: dict[str, str],
    text: str,
    push_source: str | None = None,
) -> FeatureView:
    """A view with the packed layout.

    Args:
        name: of the view.
        entity: whose values it holds.
        value: its one feature, of type Bytes.
        source: its name, and the folder of its Parquet files.
        tags: `packed_as` and, for a short name in keys, `key_name`.
        text: description for people.
        push_source: name by which `FeatureStore.push` writes it; None for no pushes.
    """
    source_name, folder = source
    batch = FileSource(
        name=source_name, path=str(folder / "*.parquet"), timestamp_field="event_timestamp"
    )
    return FeatureView(
        name=name,
        entities=[entity],
        ttl=NEVER,
        schema=[Field(name=entity.join_key, dtype=Int64), value],
        source=batch if push_source is None else PushSource(name=push_source, batch_source=batch),
        tags={"layout": "packed", **tags},
        # A plain `feast materialize` goes over every view that is online, and ends at the first
        # without files. Of what a workspace need not have, the next apply after it is there tells.
        online=name == MEMORY_VIEW or folder.exists(),
        description=text,
    )


def feature_views(root: Path) -> tuple[FeatureView, FeatureView, FeatureView]:
    """`user_interest`, `item_image`, `user_features` with the sources of the workspace `root`."""
    interest = packed_view(
        MEMORY_VIEW,
        user,
        Field(
            name=MEMORY_FEATURE, dtype=Bytes, description="the record of uic.models.records.record"
        ),
        ("memory_snapshots", root / "memories" / "current"),
        {"packed_as": "memory", "key_name": MEMORY_KEY_NAME},
        "The packed memory of a user: what all behaviours so far have left.",
    )
    vector = "see uic.feature_repo.store.item_vectors"
    image = packed_view(
        ITEM_VIEW,
        item,
        Field(name="embedding", dtype=Bytes, description=vector),
        ("item_images", root / "item_images" / "current"),
        {"packed_as": "item_vector"},
        "The embedding of an item's picture (12 numbers), of one item version.",
    )
    row = "the row of uic.models.features.rows"
    features = packed_view(
        USER_FEATURES_VIEW,
        user,
        Field(name=USER_FEATURES_FEATURE, dtype=Bytes, description=row),
        ("user_feature_rows", root / PUBLISHED / "current"),
        {"packed_as": "vector", "key_name": USER_FEATURES_KEY_NAME},
        "A user's features beside ids, as features.yaml defines them.",
        push_source=USER_ROWS_PUSH,
    )
    return interest, image, features


user_interest, item_image, user_features = feature_views(workspace())

user_interest_decoded = on_demand_feature_view(
    name="user_interest_decoded",
    sources=[user_interest],
    schema=[
        Field(name="channels", dtype=Array(Float32)),
        Field(name="slots", dtype=Array(Float32)),
        Field(name="epoch", dtype=Int64),
        Field(name="partition", dtype=Int64),
        Field(name="offset", dtype=Int64),
        Field(name="events", dtype=Int64),
        Field(name="last_event_time_ms", dtype=Int64),
        Field(name="bundle", dtype=String),
        Field(name="generation", dtype=Int64),
    ],
    mode="python",
    description="A memory as named numbers: position, events, age, channels, slots.",
)(_decode_memories)

item_image_decoded = on_demand_feature_view(
    name="item_image_decoded",
    sources=[item_image],
    schema=[Field(name="embedding_values", dtype=Array(Float32))],
    mode="python",
    description="The embedding of an item's picture as a list.",
)(_decode_vectors)


# Views of parts are made at each apply; Feast's decorator takes the source of a function once.
_SOURCES = {
    "user_state": inspect.getsource(_decode_user_state),
    "candidate_state": inspect.getsource(_decode_candidate_state),
}
for _function in (_decode_user_state, _decode_candidate_state):
    _function.__module__ = "__main__"  # so that the registry needs no file of this name


def state_views(root: Path) -> tuple[OnDemandFeatureView, ...]:
    """`user_state`, `candidate_state` of the parts of the live generation, in `memories/live`.

    One without features is left out. What the parts say is computed from the record, as of the
    moment of the read.
    """
    state = state_in_force(root)
    if state is None:
        return ()
    schemas: dict[bool, list[Field]] = {False: [], True: []}
    for one in state.described:
        name = one.name.replace(".", "_")
        # Without a description: Feast holds them against what it infers, which has none.
        schemas[one.of_candidate].append(Field(name=name, dtype=Float64))
    candidate = RequestSource(
        name="candidate", schema=[Field(name=name, dtype=Int64) for name in CANDIDATE]
    )
    told = (
        ("user_state", False, [user_interest], _decode_user_state),
        ("candidate_state", True, [user_interest, candidate], _decode_candidate_state),
    )
    return tuple(
        OnDemandFeatureView(
            name=name,
            sources=sources,
            schema=schemas[of_candidate],
            mode="python",
            description=f"What the exact parts of a record say now of a {name.split('_')[0]}.",
            udf=function,
            udf_string=_SOURCES[name],
        )
        for name, of_candidate, sources, function in told
        if schemas[of_candidate]
    )


# `feast apply` takes what it finds by name in a module.
for _view in state_views(workspace()):
    globals()[_view.name] = _view

ranker_v1 = FeatureService(
    name="ranker_v1",
    features=[user_interest, item_image],
    description="What the ranking service reads, packed.",
)
interest_v1 = FeatureService(
    name="interest_v1",
    features=[user_interest_decoded],
    description="A user's memory for people.",
)

# What does not depend on a workspace.
DEFINITIONS = (
    user,
    item,
    user_interest_decoded,
    item_image_decoded,
    ranker_v1,
    interest_v1,
)
