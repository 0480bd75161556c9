"""What the slots of a memory hold, and how they are used (MIMN, figure 6; section 4.2).

A memory whose slots are one vector has an effective rank of 1 whatever their number: re-balancing
then has nothing to balance, and induction nothing to choose.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final, Self

# Below this effective rank a memory of several slots is said to have collapsed.
COLLAPSED_RANK: Final = 1.5


@dataclass(frozen=True)
class SlotUse:
    """How the slots of some users' memories are used.

    Attributes:
        effective_rank: of M, mean over users: e to the entropy of its normalised singular values
            (Roy and Vetterli, EUSIPCO 2007), 1 to slots.
        slot_cosine: median over users of the mean cosine between two slots, -1 to 1; 1 of one slot.
        write_peak: mean over events of the largest write weight, 1 / slots to 1.
        commonest_channel: mean over users of the share of events whose most read slot is the
            user's commonest one, 1 / slots to 1.
        shares: (slots,), share of all writes that each slot received; sums to 1.
    """

    effective_rank: float
    slot_cosine: float
    write_peak: float
    commonest_channel: float
    shares: tuple[float, ...]

    @property
    def collapsed(self) -> bool:
        """Whether several slots hold one thing."""
        return len(self.shares) > 1 and self.effective_rank < COLLAPSED_RANK

    def to_json(self) -> dict[str, float | list[float]]:
        """For `metrics.json`."""
        return {**asdict(self), "shares": list(self.shares)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{**document, "shares": tuple(document["shares"])})

    def describe(self) -> str:
        """One line for a person."""
        return (
            f"slots: effective rank {self.effective_rank:.2f} of {len(self.shares)}, an event "
            f"writes {self.write_peak:.0%} to one slot, a user's commonest channel takes "
            f"{self.commonest_channel:.0%} of the events"
        )

    def remark(self) -> str | None:
        """A warning for a person; None for slots that hold different things."""
        if not self.collapsed:
            return None
        return (
            f"the {len(self.shares)} slots of the memory hold one vector (effective rank "
            f"{self.effective_rank:.2f}, median cosine {self.slot_cosine:.4f}): more days or "
            "epochs spread them where routing is on, as in mimn; --set routing=true gives kinds "
            "of items slots of their own where it is off, --set slots=1 makes the record smaller"
        )
