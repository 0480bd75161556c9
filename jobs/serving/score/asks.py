"""What a scorer is asked, what it answers, and what an answer says of the record behind it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.score.context import RequestContext
from uic.models.features.definition import CLICK
from uic.models.features.fitted import FittedFeature
from uic.models.features.raw import RawValues
from uic.models.records.record import HEADER

# What an item's feature is served with where it is not as its value is: a default, a spare row.
LACKS: Final = 1
UNSEEN: Final = 2


@dataclass(frozen=True)
class Ask:
    """One user's candidates and record, ready to be scored.

    Args:
        item_ids: distinct candidates.
        record: the user's memory or ring of events; None scores a new user.
        explain: whether reasons for each score are asked for.
        moment_ms: when they are shown, milliseconds since 1970 UTC; default: now. A model that
            reads a history with its times (IMN, SIM) measures from here.
        user_id: of the user, for a model that has weights for users (LMN).
        user_features: the user's row of features (`uic.models.features.rows`); None for none.
        context: of the request; None for none.
        beside: the record of exact parts of a user whose `record` is a ring of events; None for
            none, and where `record` has the parts itself.
    """

    item_ids: list[int]
    record: bytes | None = None
    explain: bool = False
    moment_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    user_id: int = 0
    user_features: bytes | None = None
    context: RequestContext | None = None
    beside: bytes | None = None


@dataclass
class FeatureFaults:
    """Features that were not served as their values are, by key.

    Attributes:
        missing: there is no value; its default.
        invalid: there is one of another type, or a row that cannot be read; its default.
        unseen: a category without a row of its own, which training had too rarely or never.
        undeclared: whether one of these is of a feature that names its `values`, so that another
            is a mistake; the long tail of a vocabulary that training fitted is none.
    """

    missing: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    undeclared: bool = False

    def reasons(self) -> Iterator[DegradedReason]:
        """What an answer says."""
        if self.missing:
            yield DegradedReason.FEATURE_MISSING
        if self.invalid:
            yield DegradedReason.FEATURE_INVALID
        if self.undeclared:
            yield DegradedReason.FEATURE_UNSEEN

    def add_unseen(self, feature: FittedFeature) -> None:
        """Take a feature one of whose categories has no row of its own."""
        self.unseen.append(feature.named.key)
        self.undeclared |= feature.feature.values is not None

    def add_items(self, features: Iterable[FittedFeature], lacking: NDArray[np.int8]) -> None:
        """Take what the candidates' features lack: (candidates, features), `LACKS` or `UNSEEN`."""
        if not lacking.any():
            return
        for one, column in zip(features, lacking.T, strict=True):
            if (column == LACKS).any():
                self.missing.append(one.named.key)
            if (column == UNSEEN).any():
                self.add_unseen(one)


@dataclass(frozen=True)
class FeatureValues:
    """What an answer was scored with beside ids, raw.

    Attributes:
        user: by key, (1,) or (1, width).
        context: by key, of one value or of one a candidate.
        items: by key, of each candidate; made when asked for, since only a log asks.
        user_row: that `user` was read from; None for none.
        moment_ms: when the candidates were shown, milliseconds since 1970 UTC; what a record's
            parts say is of then.
        of_user: keys of `context` that are of the user: the same for all candidates.
    """

    user: Mapping[str, RawValues]
    context: Mapping[str, RawValues]
    items: Callable[[], Mapping[str, RawValues]]
    user_row: bytes | None = None
    moment_ms: int | None = None
    of_user: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Scored:
    """Logits of one user's candidates.

    Args:
        logits: (candidates,), float32, of a click.
        known: (candidates,), bool: in the item table.
        bundle: `model/version` that scored them.
        without_memory: (candidates,), the logits of a new user; None unless asked for.
        slot_weights: (candidates, slots), how much each slot of M was read; None unless asked for.
        reasons: why these scores are not what they could be.
        without_image: candidates and events that were scored with the default image; count.
        faults: features that were served with their defaults.
        features: what was scored with beside ids; None for a bundle without features.
        tasks: of each label beside the click that the bundle has a head for: (candidates,),
            float32.
        record: the memory or the exact parts that were used, as the store had them; None for none.
    """

    logits: NDArray[np.float32]
    known: NDArray[np.bool_]
    bundle: str
    without_memory: NDArray[np.float32] | None = None
    slot_weights: NDArray[np.float32] | None = None
    reasons: tuple[DegradedReason, ...] = ()
    without_image: int = 0
    faults: FeatureFaults = field(default_factory=FeatureFaults)
    features: FeatureValues | None = None
    tasks: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    record: bytes | None = None

    @property
    def finite(self) -> bool:
        """Whether all logits are numbers."""
        return all(bool(np.isfinite(own).all()) for own in (self.logits, *self.tasks.values()))

    def logits_of(self, task: str) -> NDArray[np.float32] | None:
        """Of `click` or of a label; None if the bundle has no head for it."""
        return self.logits if task == CLICK else self.tasks.get(task)


@dataclass(frozen=True)
class RecordFacts:
    """What a record's header says of itself."""

    generation: int
    events: int
    last_event_time_ms: int
    bundle: str
    epoch: int
    partition: int
    offset: int

    def age_seconds(self, now: float) -> float | None:
        """Since the last behaviour, at `now` (Unix seconds); None where things were only shown."""
        if not self.last_event_time_ms:
            return None
        return now - self.last_event_time_ms / 1000


def header_facts(record: bytes) -> RecordFacts:
    """What a record's header says."""
    header = np.frombuffer(record, dtype=HEADER, count=1)[0]
    return RecordFacts(
        generation=int(header["generation"]),
        events=int(header["events"]),
        last_event_time_ms=int(header["last_event_time_ms"]),
        bundle=bytes(header["bundle"]).hex(),
        epoch=int(header["epoch"]),
        partition=int(header["partition"]),
        offset=int(header["offset"]),
    )


def candidates_of(asks: Sequence[Ask]) -> list[int]:
    """All candidates, user after user."""
    return [item for ask in asks for item in ask.item_ids]


def rows_by_ask(asks: Sequence[Ask]) -> list[slice]:
    """Where each ask's candidates stand in `candidates_of`."""
    ends = np.cumsum([len(ask.item_ids) for ask in asks]).tolist()
    return [slice(end - len(ask.item_ids), end) for ask, end in zip(asks, ends, strict=True)]


def by_task(
    all_logits: NDArray[np.float32], tasks: Iterable[str]
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """`Outputs.all_logits` as those of a click, and those of each label beside it."""
    if all_logits.ndim == 1:
        return all_logits, {}
    columns = np.ascontiguousarray(all_logits.T)
    return columns[0], dict(zip(tasks, columns[1:], strict=True))


def part_of_tasks(
    tasks: Mapping[str, NDArray[np.float32]], rows: slice
) -> dict[str, NDArray[np.float32]]:
    """Those of one ask."""
    return {name: logits[rows] for name, logits in tasks.items()}
