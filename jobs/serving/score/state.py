"""What records' exact parts say of candidates at the moment of a request."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uic.jobs.serving.score.asks import Ask, candidates_of
from uic.jobs.serving.score.items import ItemTable
from uic.models.bundles.bundle import Bundle
from uic.models.features.definition import Owner
from uic.models.features.raw import RawValues
from uic.models.records.record import Records, parts_view
from uic.models.state.named import named_features
from uic.models.state.part import Asked


class RecordFeatures:
    """The features of a bundle's parts; never changed.

    Args:
        bundle: of any model; may be without parts.
        table: of items.
    """

    def __init__(self, bundle: Bundle, table: ItemTable) -> None:
        self._state = bundle.state
        self._table = table
        self._named = named_features(bundle.state)
        reads = frozenset[str]() if self._state is None else self._state.reads
        # A part by a column of events: the item's feature of that name, as the bundle has it.
        self._keys = tuple(
            one.named
            for one in bundle.vocabulary.features.fitted
            if one.named.owner is Owner.ITEM and one.named.name in reads
        )

    @property
    def bytes(self) -> int:
        """Of the parts of a record."""
        return 0 if self._state is None else self._state.bytes

    def of_histories(
        self, asks: Sequence[Ask], categories: NDArray[np.int64]
    ) -> dict[str, RawValues]:
        """As `of`, for users whose parts stand in `Ask.beside`; None is a new user's."""
        if self._state is None:
            return {}
        new = self._state.initial().tobytes()
        joined = bytearray().join(
            new if ask.beside is None else ask.beside[-len(new) :] for ask in asks
        )
        states = np.frombuffer(joined, np.uint8).reshape(len(asks), len(new))
        return self.of(asks, states, categories)

    def of(
        self, asks: Sequence[Ask], records: Records, categories: NDArray[np.int64]
    ) -> dict[str, RawValues]:
        """Values of each candidate, user after user, by key: (candidates,) float32.

        Args:
            asks: users with their candidates.
            records: (asks, record bytes), or their parts alone.
            categories: (candidates,) int64, user after user.
        """
        if self._state is None:
            return {}
        sizes = [len(ask.item_ids) for ask in asks]
        item_ids = np.array(candidates_of(asks), np.int64)
        asked = Asked(
            owners=np.repeat(np.arange(len(asks)), sizes),
            now_ms=np.repeat(np.array([ask.moment_ms for ask in asks], np.int64), sizes),
            item_ids=item_ids,
            category_ids=categories,
            columns=self._candidate_keys(item_ids),
        )
        states = np.ascontiguousarray(parts_view(records, self._state.bytes))
        found = self._state.features(states, asked)
        return {named.key: found[:, at] for at, named in enumerate(self._named)}

    def _candidate_keys(self, item_ids: NDArray[np.int64]) -> Mapping[str, NDArray[np.int64]]:
        site = self._table.features
        values: dict[str, Any] = {
            named.name: site.values_of(named, item_ids) for named in self._keys
        }
        return values
