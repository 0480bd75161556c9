"""The view `user_sequence`: the last 1,000 events of a user, for rankers that read a history.

It is there to be compared with (and for teams that already serve such a ranker), so it is applied
by the service that reads it, and not with the other definitions. A value is a ring
(`uic.models.records.sequence_ring`) behind the header of a vector; of two, the one with the later
position wins. `uic.feature_repo.store.sequence_writer` is how the stream adds events.
"""

from pathlib import Path
from typing import Final

from feast import FeatureService, FeatureStore, FeatureView, Field
from feast.types import Bytes

from uic.feature_repo.features import packed_view, user
from uic.feature_repo.store.layout import SEQUENCE_KEY_NAME

SEQUENCE_VIEW: Final = "user_sequence"
SEQUENCE_SERVICE: Final = "sequence_v1"


def sequence_view(root: Path) -> FeatureView:
    """`user_sequence` with the sources of the workspace `root`."""
    ring = "the ring of uic.models.records.sequence_ring"
    return packed_view(
        SEQUENCE_VIEW,
        user,
        Field(name="sequence", dtype=Bytes, description=ring),
        ("user_sequences", root / "sequences" / "current"),
        {"packed_as": "sequence", "key_name": SEQUENCE_KEY_NAME},
        "The last 1,000 events of a user, packed.",
    )


def apply_sequences(store: FeatureStore, workspace: Path) -> None:
    """Put the view and its feature service `sequence_v1` into the workspace's registry."""
    view = sequence_view(workspace.resolve())
    service = FeatureService(
        name=SEQUENCE_SERVICE,
        features=[view],
        description="What a ranker reads that computes interest in the request.",
    )
    store.apply([user, view, service])
