"""What an audit found, as data: one entry a generation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

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
    counts: dict[Verdict, int]
    largest_difference: float
    tolerance: float
    through_feast: int
    examples: tuple[Example, ...]

    @property
    def mismatches(self) -> int:
        """Users whose memory is not what the log says."""
        return sum(self.counts[verdict] for verdict in MISMATCHES)

    def to_json(self) -> dict[str, Any]:
        """For files and programs."""
        return {
            "generation": self.number,
            "state": self.state,
            "bundle": self.bundle,
            "first_day": self.first_day,
            "users": self.users,
            "events": self.events,
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
    """

    answers: int = 0
    memories: int = 0
    matched: int = 0
    differing: int = 0
    ahead: int = 0
    scored: int = 0
    largest_difference: float = 0.0

    @property
    def mismatches(self) -> int:
        """Differing memories, and 1 for probabilities that differ; zero if all is well."""
        return self.differing + (self.largest_difference > PROBABILITY_TOLERANCE)

    def to_json(self) -> dict[str, Any]:
        """For files and programs."""
        return {**vars(self), "probability_tolerance": PROBABILITY_TOLERANCE}


def require_no_mismatch(
    audits: Sequence[GenerationAudit], served: ServedAudit | None = None
) -> None:
    """Raise if a memory is not what the log says, or an answer not what the model says.

    Raises:
        AuditMismatchError: names the generation, the counts and a user of each kind.
    """
    wrong = [audit for audit in audits if audit.mismatches]
    if served is not None and served.mismatches and not wrong:
        msg = (
            f"what was served is not what the log says: {served.differing} memories differ, "
            f"probabilities by up to {served.largest_difference:.2g}; docs/operations.md says what "
            "to look at"
        )
        raise AuditMismatchError(msg)
    if not wrong:
        _require_users(audits)
        return
    parts = []
    for audit in wrong:
        counts = ", ".join(
            f"{audit.counts[verdict]} {verdict.name.lower()}"
            for verdict in MISMATCHES
            if audit.counts[verdict]
        )
        first: dict[Verdict, int] = {}
        for example in audit.examples:
            first.setdefault(example.verdict, example.user_id)
        users = ", ".join(f"user {user} {verdict.name.lower()}" for verdict, user in first.items())
        parts.append(
            f"generation {audit.number}: {counts} of {audit.users} users"
            + (f" ({users})" if users else "")
        )
    msg = (
        f"the store is not what the log says: {'; '.join(parts)}; docs/operations.md says what "
        "to look at, and how to build the generation again"
    )
    raise AuditMismatchError(msg)


def _require_users(audits: Sequence[GenerationAudit]) -> None:
    """An audit that compared no user has shown nothing.

    Raises:
        AuditMismatchError: names the generations without a user.
    """
    empty = [str(audit.number) for audit in audits if not audit.users]
    if empty:
        msg = (
            f"generation {', '.join(empty)}: no user was compared: the store has no memory, and "
            "the sample takes no user of the log; load a snapshot (`uic memories load`), or raise "
            "--sample-rate"
        )
        raise AuditMismatchError(msg)
