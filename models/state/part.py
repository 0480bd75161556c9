"""What a part of a record is: bytes that events are folded into, and features that are read off.

A part's time is **log time** (`EventBatch.log_times_ms`), the one clock that does not depend on
what a producer says; the event time is not looked at. Three laws hold for every part, and
`tests/models/state/test_laws.py` holds each part to them:

1. Folding events in pieces gives the bytes of folding them at once.
2. Reading at a later `now` is a fold of nothing until then: a read changes nothing.
3. A part reads the columns that it declares, and nothing else of an event.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.definition import Scale
from uic.models.records.positions import EventBatch
from uic.models.settings import Section

# A state's clock is a uint32 number of units; a unit of a second reaches to the year 2106.
MOST_CLOCK: Final = 2**32 - 1
# (users, bytes of the part), uint8, C-contiguous.
States = NDArray[np.uint8]
Features = NDArray[np.float32]


class StateFileError(BadInputError):
    """`state.yaml` is not one: names the part, what was found and what was expected."""


@dataclass(frozen=True)
class PartFeature:
    """One number that a part gives.

    Attributes:
        name: within the part.
        description: what it is, with its unit, in half a sentence.
        scale: what a model makes of it (`uic.models.features.definition.Scale`).
        of_candidate: whether it differs between the candidates of a request.
    """

    name: str
    description: str
    scale: Scale = Scale.LOG
    of_candidate: bool = False


@dataclass(frozen=True)
class Asked:
    """What features are asked for: users at a time, each with a candidate.

    Attributes:
        owners: (rows,) int64, the state of each.
        now_ms: (rows,) int64, milliseconds since 1970 UTC.
        item_ids: (rows,) int64, the candidates.
        category_ids: (rows,) int64, theirs.
        columns: what is known of candidates by the names of events' columns, (rows,) int64.
    """

    owners: NDArray[np.int64]
    now_ms: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.owners)

    def select(self, rows: NDArray[np.int64]) -> Self:
        """These rows, in this order."""
        return type(self)(
            self.owners[rows],
            self.now_ms[rows],
            self.item_ids[rows],
            self.category_ids[rows],
            {name: values[rows] for name, values in self.columns.items()},
        )


@dataclass(frozen=True)
class Cuts:
    """Which events each row of `Asked` has before it.

    Rows are sorted by owner, then by `ends`; the events of one owner lie together.

    Attributes:
        begins: (rows,) int64, the first event that the row before of the same owner did not have.
        ends: (rows,) int64, one past the last.
    """

    begins: NDArray[np.int64]
    ends: NDArray[np.int64]


class StatePart(ABC):
    """One part of a record; a subclass is one kind.

    Args:
        name: in the file; the features are called `name.feature`.
        settings: of the kind.
    """

    settings_type: ClassVar[type[Section]]
    # Whether weights of a bundle decide the bytes; an exact part outlives bundles.
    exact: ClassVar[bool] = True

    def __init__(self, name: str, settings: Any) -> None:
        self.name = name
        self.settings = settings

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Of a state; a multiple of 8."""

    @property
    @abstractmethod
    def described(self) -> tuple[PartFeature, ...]:
        """The features, in the order of the columns that `features` gives."""

    @property
    def shown_share(self) -> float:
        """Of which share of the requests the shown items are read: 0 for none, 1 for all."""
        return 0.0

    @property
    def reads(self) -> frozenset[str]:
        """Further columns of events that are read, by name."""
        return frozenset()

    @property
    def reads_ids(self) -> bool:
        """Whether those columns are keys, so categories."""
        return False

    @property
    def reads_numbers(self) -> bool:
        """Whether those columns are reckoned with, so numbers."""
        return False

    @property
    def facts(self) -> Mapping[str, str]:
        """What `uic state show` says of it beside its bytes: resolution, largest error."""
        return {}

    def fresh(self) -> NDArray[np.uint8]:
        """The state of a user without an event: (bytes,)."""
        return np.zeros(self.bytes, np.uint8)

    @abstractmethod
    def fold(self, states: States, events: EventBatch) -> None:
        """Fold events into the states of their `user_index`, in place.

        Args:
            states: (users, bytes).
            events: each user's in the order of the log.
        """

    @abstractmethod
    def features(self, states: States, asked: Asked) -> Features:
        """What states say: (rows, features), float32; NaN where there is nothing to say."""

    def walk(self, states: States, events: EventBatch, asked: Asked, cuts: Cuts) -> Features:
        """Features of each row as of the events before it; `states` are fresh, and are changed.

        This one folds in rounds, a cut of each user in each; the parts of this package do it in
        one compiled pass.

        Args:
            states: (users, bytes).
            events: each user's together, in the order of the log.
            asked: sorted by owner and by `cuts.ends`.
            cuts: of the rows.
        """
        found = np.zeros((len(asked), len(self.described)), np.float32)
        for rows in rounds(asked.owners):
            lengths = cuts.ends[rows] - cuts.begins[rows]
            offsets = np.cumsum(lengths) - lengths
            places = np.arange(int(lengths.sum())) - np.repeat(offsets, lengths)
            self.fold(states, events.select(np.repeat(cuts.begins[rows], lengths) + places))
            found[rows] = self.features(states, asked.select(rows))
        return found


def rounds(owners: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
    """The first row of each owner, the second of each, and so on; owners lie together."""
    if not len(owners):
        return []
    begins = np.flatnonzero(np.diff(owners, prepend=owners[0] - 1))
    sizes = np.diff(np.append(begins, len(owners)))
    within = np.arange(len(owners)) - np.repeat(begins, sizes)
    order = np.argsort(within, kind="stable")
    return np.split(order, np.cumsum(np.bincount(within))[:-1])


def fields_of(states: States, layout: Mapping[str, tuple[int, Any, int]]) -> dict[str, Any]:
    """Named columns of states as typed views: name -> (first byte, dtype, count)."""
    return {
        name: states[:, first : first + np.dtype(kind).itemsize * count].view(kind)
        if count
        else np.zeros((len(states), 0), kind)
        for name, (first, kind, count) in layout.items()
    }


def laid_out(fields: Sequence[tuple[str, Any, int]]) -> tuple[dict[str, tuple[int, Any, int]], int]:
    """Fields one after the other, each at a multiple of its size: the layout, and bytes in all."""
    layout: dict[str, tuple[int, Any, int]] = {}
    at = 0
    for name, kind, count in fields:
        size = np.dtype(kind).itemsize
        at = -(-at // size) * size
        layout[name] = (at, kind, count)
        at += size * count
    return layout, -(-at // 8) * 8
