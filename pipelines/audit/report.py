"""What an audit found, as data: one entry a generation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uic.models.errors import QualityGateError
from uic.pipelines.audit.compare import MISMATCHES, Verdict

# Sums of a few hundred float32 products, in another order.
PROBABILITY_TOLERANCE: Final = 1e-4


class AuditMismatchError(QualityGateError):
    """What is served is not what the log says; exit status 3."""


@dataclass(frozen=True)
class Example:
    """One user whose memory is not right."""

    user_id: int
    verdict: Verdict
    difference: float
    epoch: int
    offset: int


@dataclass
class AuditTally:
    """Counts while buckets pass."""

    examples_of_each: int
    users: int = 0
    events: int = 0
    repeated: int = 0
    largest: float = 0.0
    counts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    examples: list[Example] = field(default_factory=list)

    def add(
        self,
        users: NDArray[np.int64],
        verdicts: NDArray[np.int8],
        differences: NDArray[np.float64],
        positions: NDArray[np.void],
    ) -> None:
        """Count some users.

        Args:
            users: (users,).
            verdicts: (users,), `Verdict`.
            differences: (users,), of a number of a state.
            positions: (users,), the headers of what is served.
        """
        self.users += len(users)
        self.largest = max(self.largest, float(differences.max(initial=0.0)))
        for verdict in Verdict:
            rows = np.flatnonzero(verdicts == verdict)
            room = max(0, self.examples_of_each - self.counts[verdict])
            self.counts[verdict] += len(rows)
            if verdict in MISMATCHES:
                self.examples += [
                    Example(
                        int(users[row]),
                        verdict,
                        float(differences[row]),
                        int(positions["epoch"][row]),
                        int(positions["offset"][row]),
                    )
                    for row in rows[:room].tolist()
                ]


@dataclass(frozen=True)
class GenerationAudit:
    """One generation.

    Attributes:
        number: of the generation.
        state: in the store.
        bundle: `model/version`.
        first_day: of the log, from which its memories were folded.
        users: that were looked at, in log or store.
        events: that were folded to compare.
        unpassed: offsets of topics that log and archive have, and no marker has passed.
        repeated: events of the log whose position another event has, too.
        losses: (epoch, partition, first offset, last offset) of events that were accepted as lost.
        counts: users by verdict.
        largest_difference: of a number of a state that was compared.
        tolerance: that was granted.
        through_feast: users that were read through Feast's API.
        examples: some mismatches.
    """

    number: int
    state: str
    bundle: str
    first_day: str
    users: int
    events: int
    unpassed: int
    repeated: int
    losses: tuple[tuple[int, int, int, int], ...]
    counts: dict[Verdict, int]
    largest_difference: float
    tolerance: float
    through_feast: int
    examples: tuple[Example, ...]

    @property
    def mismatches(self) -> int:
        """Users whose memory is not what the log says, or of whom nothing can be said."""
        return sum(self.counts[verdict] for verdict in MISMATCHES)

    def faults(self) -> list[str]:
        """What is wrong, a phrase each; empty if every memory is what the log says."""
        counts = ", ".join(
            f"{self.counts[verdict]} {verdict.name.lower()}"
            for verdict in MISMATCHES
            if self.counts[verdict]
        )
        first: dict[Verdict, int] = {}
        for example in self.examples:
            first.setdefault(example.verdict, example.user_id)
        users = ", ".join(f"user {user} {verdict.name.lower()}" for verdict, user in first.items())
        faults = [f"{counts} of {self.users} users" + (f" ({users})" if users else "")] * bool(
            counts
        )
        if self.counts[Verdict.AHEAD]:
            faults.append(
                "those ahead have positions that neither log nor archive has, so nothing can be "
                "said of them (is stream.archive on?)"
            )
        if self.unpassed and self.state == "live":
            faults.append(
                f"its markers have not passed {self.unpassed:,} offsets that have streamed: the "
                "store was put back to an older copy, or nothing streams into this generation"
            )
        if self.repeated:
            faults.append(f"the log has {self.repeated} positions twice")
        if not self.users:
            faults.append(
                "no user was compared: the store has no memory, and the sample takes no user of "
                "the log; load a snapshot (`uic memories load`), or raise --sample-rate"
            )
        return faults

    def to_json(self) -> dict[str, Any]:
        """For files and programs."""
        return {
            "generation": self.number,
            "state": self.state,
            "bundle": self.bundle,
            "first_day": self.first_day,
            "users": self.users,
            "events": self.events,
            "unpassed": self.unpassed,
            "repeated": self.repeated,
            "losses": [list(loss) for loss in self.losses],
            **{verdict.name.lower(): count for verdict, count in self.counts.items()},
            "largest_difference": self.largest_difference,
            "tolerance": self.tolerance,
            "through_feast": self.through_feast,
            "examples": [
                {
                    "user_id": example.user_id,
                    "verdict": example.verdict.name.lower(),
                    "difference": example.difference,
                    "epoch": example.epoch,
                    "offset": example.offset,
                }
                for example in self.examples
            ],
        }


@dataclass
class ServedRows:
    """Rows of features that answers were given with (`uic.pipelines.audit.served_values`).

    Attributes:
        rows: that were judged: of a user one an answer, of an item one a candidate.
        matched: the row that held when the answer was given.
        late: an earlier one.
        pushed: of a user, from a time at which the table has none.
        missing: defaults of which the answer said so.
        differing: none of these.
        examples: some of those, in words.
    """

    rows: int = 0
    matched: int = 0
    late: int = 0
    pushed: int = 0
    missing: int = 0
    differing: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class ServedAudit:
    """Answers beside the log.

    Attributes:
        answers: that were given with a memory.
        memories: different ones among them.
        matched: memories that are the log's fold, byte for byte.
        differing: those that are not.
        ahead: memories whose position the log does not have yet; not judged.
        scored: candidates whose probability was computed again.
        largest_difference: of a probability.
        parts: answers whose features of records' exact parts were compared.
        parts_differing: features of records' exact parts that are not what the log says of the
            record at the answer's moment.
        features: that answers were given with, beside the tables; None without `features.yaml`.
    """

    answers: int = 0
    memories: int = 0
    matched: int = 0
    differing: int = 0
    ahead: int = 0
    scored: int = 0
    largest_difference: float = 0.0
    parts: int = 0
    parts_differing: int = 0
    features: ServedRows | None = None

    @property
    def mismatches(self) -> int:
        """Differing memories and features, and 1 for other probabilities; zero if all is well."""
        features = 0 if self.features is None else self.features.differing
        features += self.parts_differing
        return self.differing + features + (self.largest_difference > PROBABILITY_TOLERANCE)

    def to_json(self) -> dict[str, Any]:
        """For files and programs."""
        features = None if self.features is None else vars(self.features)
        tolerance = PROBABILITY_TOLERANCE
        return {**vars(self), "features": features, "probability_tolerance": tolerance}


def require_no_mismatch(
    audits: Sequence[GenerationAudit],
    served: ServedAudit | None = None,
    others: Sequence[str] = (),
) -> None:
    """Raise if a memory is not what the log says, or an answer not what the model says.

    What could not be judged is an error, too, with its reason.

    Args:
        audits: of the generations.
        served: of the service's answers; None for nothing.
        others: faults of what lies around the store.

    Raises:
        AuditMismatchError: names the generation, the counts and a user of each kind.
    """
    wrong = [
        f"generation {audit.number}: {'; '.join(faults)}"
        for audit in audits
        if (faults := audit.faults())
    ]
    if served is not None and served.mismatches:
        wrong.append(
            f"what was served: {served.differing} memories differ, probabilities by up to "
            f"{served.largest_difference:.2g}, {served.parts_differing} features of records' parts"
        )
        if served.features is not None and served.features.differing:
            first = served.features.examples[0]
            wrong.append(f"{served.features.differing} rows of features differ ({first})")
    elif served is not None and served.memories and served.memories == served.ahead:
        wrong.append("what was served: no memory is in log or archive yet, so none was judged")
    wrong += others
    if wrong:
        msg = (
            f"the store is not what the log says, or was not judged: {'. '.join(wrong)}. "
            "docs/operations.md says what to look at, and how to build a generation again"
        )
        raise AuditMismatchError(msg)
