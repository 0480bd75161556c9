"""What a workspace says of features: `features.yaml`, the items' table, layouts of users' rows.

It belongs to no bundle. Nothing here stops a service: what cannot be read is said (`problem`), the
item table that was read last stays, and a bundle takes defaults for what it does not find.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from uic.feature_repo.user_features import layouts_of
from uic.models.errors import BadInputError
from uic.models.features.dated import DatedTable
from uic.models.features.definition import FeatureSet, NamedFeature, Owner
from uic.models.features.feature_file import load_features
from uic.models.features.raw import RawValues, missing_values
from uic.models.features.rows import RowLayout, raw_definition
from uic.models.published import sha256_of

# Files with their size in bytes, and when each was written in nanoseconds.
SiteStamp = tuple[tuple[str, int, int], ...]
_NO_IDS: Final = np.zeros(0, np.int64)


@dataclass(frozen=True)
class SiteFeatures:
    """The features of a workspace as they are now.

    Attributes:
        definitions: of `features.yaml`; none without it.
        item_ids: (items,) int64, ascending: items that have a row now.
        items: their raw values by key, (items,) or (items, width).
        layouts: of users' rows, by fingerprint.
        version: changes with `item_ids` and `items`.
        next_change_ms: when another row of an item comes to hold; None for never.
        problem: why something could not be read, in one line.
    """

    definitions: FeatureSet = field(default_factory=FeatureSet)
    item_ids: NDArray[np.int64] = field(default_factory=lambda: _NO_IDS)
    items: Mapping[str, RawValues] = field(default_factory=dict)
    layouts: Mapping[bytes, RowLayout] = field(default_factory=dict)
    version: str = "none"
    next_change_ms: int | None = None
    problem: str | None = None

    @classmethod
    def load(cls, workspace: Path, last: "SiteFeatures | None" = None) -> "SiteFeatures":
        """Read them as of now.

        Args:
            workspace: folder.
            last: what stays of a file that cannot be read; None for nothing.
        """
        last = last or cls()
        path = workspace / "features.yaml"
        try:
            layouts = layouts_of(workspace)
            if not path.exists():
                return cls(layouts=layouts)
            definitions = load_features(path)
            users = definitions.of(Owner.USER)
            if users:
                layout = RowLayout(users)
                layouts = {**layouts, layout.fingerprint: layout}
            site = cls(definitions, layouts=layouts)
            return site._with_items(time.time_ns() // 1_000_000)
        except (BadInputError, OSError) as error:
            return replace(last, problem=" ".join(str(error).split()))

    def _with_items(self, now_ms: int) -> Self:
        features, source = self.definitions.of(Owner.ITEM), self.definitions.sources.item
        if not features or source is None:
            return self
        path = self.definitions.folder / source.file
        table = DatedTable.read(path, source, features)
        ids = np.unique(table.ids)
        rows = table.as_of(ids, np.full(ids.size, now_ms + 1))
        ids, rows = ids[rows >= 0], rows[rows >= 0]
        later = table.valid_from_ms[table.valid_from_ms > now_ms]
        return replace(
            self,
            item_ids=ids,
            items={named.key: table.values[named.key][rows] for named in features},
            version=f"{path.name}:{sha256_of(path)[:16]}",
            next_change_ms=int(later.min()) if later.size else None,
        )

    @cached_property
    def _by_key(self) -> Mapping[str, NamedFeature]:
        return {named.key: named for named in self.definitions}

    def has(self, wanted: NamedFeature) -> bool:
        """Whether the site has a bundle's feature, with the raw values that it was trained on."""
        named = self._by_key.get(wanted.key)
        return named is not None and raw_definition(named) == raw_definition(wanted)

    def has_items(self, wanted: NamedFeature, item_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of which items the site has a row with the feature: (n,) bool."""
        if not self.has(wanted):
            return np.zeros(item_ids.size, np.bool_)
        return self._rows(item_ids) >= 0

    def values_of(self, wanted: NamedFeature, item_ids: NDArray[np.int64]) -> RawValues:
        """A feature's raw values of items, (n,) or (n, width); the default of those without."""
        values = missing_values(wanted.feature, item_ids.size)
        if self.has(wanted):
            rows = self._rows(item_ids)
            known = rows >= 0
            values[known] = self.items[wanted.key][rows[known]]
        return values

    def _rows(self, item_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each item, (n,) int64; -1 for none."""
        if not self.item_ids.size:
            return np.full(item_ids.size, -1, np.int64)
        places = np.minimum(np.searchsorted(self.item_ids, item_ids), self.item_ids.size - 1)
        return np.where(self.item_ids[places] == item_ids, places, -1)

    def stamp(self, workspace: Path) -> SiteStamp:
        """Changes when anything is to be read again."""
        stamps = [_stamp(path) for path in self._files(workspace)]
        due = self.next_change_ms
        if due is not None and time.time_ns() // 1_000_000 > due:
            stamps.append(("due", due, 0))
        return tuple(stamps)

    def _files(self, workspace: Path) -> Iterator[Path]:
        yield workspace / "features.yaml"
        yield from sorted((workspace / "user_features" / "definitions").glob("*.json"))
        if self.definitions.sources.item is not None:
            yield self.definitions.folder / self.definitions.sources.item.file


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError:
        return str(path), -1, -1
    return str(path), status.st_size, status.st_mtime_ns
