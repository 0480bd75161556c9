"""The features of a bundle, of what a request, the store and the item table say.

Items' are embedded once an item, with its vector (`uic.jobs.serving.score.items`); users' once a
pass and user, of the row that was read with the memory; the context's of the request. What is not
there takes its default, as in training, and the answer says which feature it was:

| | missing | invalid |
|---|---|---|
| context | the request does not name it | a value of another type |
| user | no row, or one made before the feature was | a damaged row, or of unknown definitions |
| item | no row, or `features.yaml` does not name it | |

A category without a row of its own in the bundle is `unseen`, whosever it is: it takes a spare row.
That is counted, and a reason where the feature names its `values`.

A null in a table, and a null in a request, are what training saw: values, and no reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.jobs.serving.score.asks import LACKS, UNSEEN, Ask, FeatureFaults, FeatureValues
from uic.jobs.serving.score.site import SiteFeatures
from uic.models.bundles.bundle import Bundle
from uic.models.features.definition import NamedFeature, Owner
from uic.models.features.fitted import FittedFeature, NumberBlock
from uic.models.features.raw import FeatureValueError, RawValues, missing_values
from uic.models.features.rows import definitions_of, raw_definition
from uic.models.layers.features import part_width


@dataclass(frozen=True)
class PassFeatures:
    """The features of a pass.

    Attributes:
        embedded: (candidates, width); None for a bundle without features.
        faults: of each ask.
        user: raw values by key, (asks,) or (asks, width).
        context: of each ask, raw values by key, of one value or of one a candidate; those of the
            record's parts are among them.
        site: that items' values are of.
        items: items' features.
        of_user: keys of `context` that a record's parts say of the user.
    """

    embedded: Tensor | None
    faults: list[FeatureFaults]
    user: Mapping[str, RawValues] = field(default_factory=dict)
    context: Sequence[Mapping[str, RawValues]] = ()
    site: SiteFeatures = field(default_factory=SiteFeatures)
    items: tuple[NamedFeature, ...] = ()
    of_user: frozenset[str] = frozenset()

    def values(self, at: int, ask: Ask) -> FeatureValues | None:
        """What an ask of the pass was scored with; None for a bundle without features."""
        if self.embedded is None:
            return None
        user = {key: values[at : at + 1] for key, values in self.user.items()}
        item_ids = np.array(ask.item_ids, np.int64)

        def items() -> dict[str, RawValues]:
            return {named.key: self.site.values_of(named, item_ids) for named in self.items}

        row, moment_ms = ask.user_features, ask.moment_ms
        return FeatureValues(user, self.context[at], items, row, moment_ms, self.of_user)


class ServedFeatures:
    """A bundle's features, where a workspace has them; never changed.

    Args:
        bundle: of any model; may be without features.
        site: the workspace's.
    """

    def __init__(self, bundle: Bundle, site: SiteFeatures) -> None:
        embedding = bundle.model.feature_embedding
        self.site = site
        self.all = bundle.vocabulary.features.fitted if embedding is not None else ()
        self._embedding = embedding
        self.users = self._of(Owner.USER)
        self.items = self._of(Owner.ITEM)
        self.context = self._of(Owner.CONTEXT)
        self._numbers = NumberBlock.of(self._of(Owner.STATE))
        parts = () if bundle.state is None else bundle.state.described
        self._of_user = frozenset(f"state.{one.name}" for one in parts if not one.of_candidate)
        self.item_width = sum(part_width(feature) for feature in self.items)
        self._layouts = {
            fingerprint: {named.key: raw_definition(named) for named in layout.features}
            for fingerprint, layout in site.layouts.items()
        }

    def _of(self, owner: Owner) -> tuple[FittedFeature, ...]:
        return tuple(feature for feature in self.all if feature.named.owner is owner)

    def warnings(self) -> list[str]:
        """What the workspace does not have of what the bundle wants; one line each."""
        found = [] if self.site.problem is None else [self.site.problem]
        for feature in (*self.users, *self.items):
            named = feature.named
            in_rows = any(
                entry.get(named.key) == raw_definition(named) for entry in self._layouts.values()
            )
            if not (in_rows if named.owner is Owner.USER else self.site.has(named)):
                found.append(
                    f"{named.key}: the bundle wants it as {raw_definition(named)}, features.yaml "
                    "has none like it: served with its default"
                )
        return found

    @torch.inference_mode()
    def embed_items(self, item_ids: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int8]]:
        """Items' features of items.

        Args:
            item_ids: (n,).

        Returns:
            (n, item width) float32, and (n, items' features) int8, by `lacking_items`.
        """
        values = [(one, self.site.values_of(one.named, item_ids)) for one in self.items]
        parts = [self._part(one, raw) for one, raw in values]
        embedded = torch.cat([torch.zeros(item_ids.size, 0), *parts], dim=1)
        return embedded, self.lacking_items(item_ids)

    def lacking_items(self, item_ids: NDArray[np.int64]) -> NDArray[np.int8]:
        """Which features of items have their default (`LACKS`) or a spare row (`UNSEEN`).

        Args:
            item_ids: (n,).

        Returns:
            (n, items' features), 0 for all others.
        """
        lacking = np.zeros((item_ids.size, len(self.items)), np.int8)
        for at, feature in enumerate(self.items):
            unseen = feature.unseen(self.site.values_of(feature.named, item_ids))
            lacks = ~self.site.has_items(feature.named, item_ids)
            lacking[:, at] = np.where(lacks, LACKS, np.where(unseen, UNSEEN, 0))
        return lacking

    @torch.inference_mode()
    def of_user(self, ask: Ask) -> tuple[Tensor, FeatureFaults]:
        """The features of an ask's user and context, for a tower: (1 or candidates, width)."""
        faults = FeatureFaults()
        values = self._user_values([ask], [faults]) | self._context_values(ask, faults)
        parts = [
            self._part(one, values[one.named.key])
            for one in self.all
            if one.named.owner is not Owner.ITEM
        ]
        rows = max((len(part) for part in parts), default=1)
        wide = [part.expand(rows, -1) for part in parts]
        return torch.cat([torch.zeros(rows, 0), *wide], dim=1), faults

    @torch.inference_mode()
    def of(
        self,
        asks: Sequence[Ask],
        items: Tensor,
        lacking: NDArray[np.int8],
        state: Mapping[str, RawValues] | None = None,
    ) -> PassFeatures:
        """The features of a pass, for the head.

        Args:
            asks: users with their candidates.
            items: (candidates, item width), by `embed_items`, user after user.
            lacking: (candidates, items' features), likewise.
            state: of the record's parts by key, (candidates,).
        """
        faults = [FeatureFaults() for _ in asks]
        if self._embedding is None:
            return PassFeatures(None, faults)
        sizes = np.array([len(ask.item_ids) for ask in asks])
        owners = torch.from_numpy(np.repeat(np.arange(len(asks)), sizes))
        users = self._user_values(asks, faults)
        context = [
            self._context_values(ask, fault) for ask, fault in zip(asks, faults, strict=True)
        ]
        ends = np.cumsum(sizes).tolist()
        for fault, end, size in zip(faults, ends, sizes.tolist(), strict=True):
            fault.add_items(self.items, lacking[end - size : end])
        parts: list[Tensor] = []
        for owner, features in groupby(self.all, key=lambda one: one.named.owner):
            if owner is Owner.ITEM:
                parts.append(items)
            elif owner is Owner.USER:
                embedded = [self._part(one, users[one.named.key]) for one in features]
                # Once a user: one select for all of them.
                parts.append(torch.cat(embedded, dim=1).index_select(0, owners))
            elif owner is Owner.STATE:
                parts.extend(self._state_parts(tuple(features), state or {}))
            else:
                for one in features:
                    values = [given[one.named.key] for given in context]
                    joined: Any = np.concatenate(values)
                    parts.append(self._part(one, joined).index_select(0, _places(values, sizes)))
        of_items = tuple(one.named for one in self.items)
        ends = np.cumsum(sizes).tolist()
        for given, end, size in zip(context, ends, sizes.tolist(), strict=True):
            given.update({key: own[end - size : end] for key, own in (state or {}).items()})
        beside = torch.cat(parts, dim=1)
        return PassFeatures(beside, faults, users, context, self.site, of_items, self._of_user)

    def _part(self, feature: FittedFeature, values: RawValues) -> Tensor:
        assert self._embedding is not None  # noqa: S101 - or there would be no feature
        return self._embedding.part(feature, torch.from_numpy(feature.encode(values)))

    def _state_parts(
        self, features: Sequence[FittedFeature], state: Mapping[str, RawValues]
    ) -> list[Tensor]:
        """What a record's parts say, (candidates, width) side by side."""
        values = [state[one.named.key] for one in features]
        if self._numbers is None:
            return [self._part(one, own) for one, own in zip(features, values, strict=True)]
        return [torch.from_numpy(self._numbers.encode(np.stack(values, axis=1)))]

    def _user_values(
        self, asks: Sequence[Ask], faults: Sequence[FeatureFaults]
    ) -> dict[str, RawValues]:
        """Raw values of users by key, of the rows that were read with their memories."""
        values = {one.named.key: missing_values(one.feature, len(asks)) for one in self.users}
        if not self.users:
            return values
        keys = list(values)
        by_layout: dict[bytes, list[int]] = {}
        for at, ask in enumerate(asks):
            row = ask.user_features
            if row is None:
                faults[at].missing.extend(keys)
                continue
            fingerprint = definitions_of(row)
            layout = None if fingerprint is None else self.site.layouts.get(fingerprint)
            if layout is None or not layout.is_row(row):
                faults[at].invalid.extend(keys)
                continue
            by_layout.setdefault(layout.fingerprint, []).append(at)
        for fingerprint, members in by_layout.items():
            rows = self.site.layouts[fingerprint].read(
                [asks[at].user_features or b"" for at in members]
            )
            known = self._layouts[fingerprint]
            for one in self.users:
                key = one.named.key
                if known.get(key) == raw_definition(one.named):
                    values[key][members] = rows[key]
                    for place in np.flatnonzero(one.unseen(rows[key])).tolist():
                        faults[members[place]].add_unseen(one)
                    continue
                for at in members:
                    faults[at].missing.append(key)
        return values

    def _context_values(self, ask: Ask, faults: FeatureFaults) -> dict[str, RawValues]:
        """Raw values of an ask's context by key: one, or one a candidate."""
        values: dict[str, RawValues] = {}
        context = ask.context
        for one in self.context:
            named = one.named
            values[named.key] = missing_values(one.feature, 1)
            if context is None or named.name not in context.values:
                faults.missing.append(named.key)
                continue
            try:
                values[named.key] = context.raw(named)
                if one.unseen(values[named.key]).any():
                    faults.add_unseen(one)
            except FeatureValueError:
                faults.invalid.append(named.key)
        return values


def _places(values: Sequence[RawValues], sizes: NDArray[np.int64]) -> Tensor:
    """Of each candidate, its place in `values`, one after the other: (candidates,) int64."""
    places, start = [], 0
    for one, size in zip(values, sizes.tolist(), strict=True):
        # One candidate and one value: both are right.
        own = np.zeros(size, np.int64) if len(one) == 1 else np.arange(size)
        places.append(start + own)
        start += len(one)
    return torch.from_numpy(np.concatenate(places))
