"""One row of the hostile drill: a fault, what must hold under it, and what was seen.

A row's check returns what it saw, and raises `NotHeldError` where that is not what must hold. Its
control is the same check where the guard is off, or where the fault's result was made by hand: a
check that says green there, too, would show nothing, and makes the row red.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from uic.jobs.drills.errors import DrillFailedError

if TYPE_CHECKING:
    from uic.jobs.drills.hostile.stage import HostileStage

_SHOWN: Final = 400  # letters of an error
RowCheck = Callable[["HostileStage"], str]
RowControl = Callable[["HostileStage"], object]


class NotHeldError(DrillFailedError):
    """What must hold under a fault does not."""


class RowVerdict(StrEnum):
    """What became of a row."""

    GREEN = "green"
    RED = "red"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class HostileRow:
    """A fault.

    Args:
        name: as the attack's list has it, `A1` to `A20`.
        fault: what is done.
        holds: what must hold.
        check: does it and looks; what was seen. Raises `NotHeldError` for anything else.
        control: a check that must raise `NotHeldError`; None where there can be none.
        needs: `java` (Flink or a broker runs: the long form alone), `kafka` (its jars, too) and
            `openssl`.
    """

    name: str
    fault: str
    holds: str
    check: RowCheck
    control: RowControl | None = None
    needs: tuple[str, ...] = ()

    @property
    def short(self) -> bool:
        """Whether it is part of the short form."""
        return not self.needs


@dataclass(frozen=True)
class HostileResult:
    """What became of a row.

    Args:
        row: that ran.
        verdict: green only if what must hold held, and the control was told.
        seen: by the check, or why it did not run.
        control: what the check said of the control; empty where there is none.
        seconds: that both took.
    """

    row: HostileRow
    verdict: RowVerdict
    seen: str
    control: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "name": self.row.name,
            "fault": self.row.fault,
            "must_hold": self.row.holds,
            "verdict": self.verdict.value,
            "seen": self.seen,
            "control": self.control,
            "seconds": round(self.seconds, 1),
        }


def require(held: object, seen: str) -> None:
    """Go on if it held.

    Raises:
        NotHeldError: it did not; `seen` says what was.
    """
    if not held:
        raise NotHeldError(seen)


def run_row(row: HostileRow, stage: "HostileStage") -> HostileResult:
    """Run a row and its control; an error of either is its result, and no end of the drill."""
    began = time.monotonic()
    missing = stage.missing(row)
    if missing:
        return HostileResult(row, RowVerdict.NOT_RUN, missing)
    try:
        seen = row.check(stage)
        verdict, control = (RowVerdict.GREEN, "") if row.control is None else _control(row, stage)
    except Exception as error:  # whatever a fault brings about is what was seen of it
        kind = "" if isinstance(error, NotHeldError) else f"{type(error).__name__}: "
        seen, verdict, control = f"{kind}{_line(error)}", RowVerdict.RED, ""
    return HostileResult(row, verdict, seen, control, time.monotonic() - began)


def _control(row: HostileRow, stage: "HostileStage") -> tuple[RowVerdict, str]:
    assert row.control is not None  # noqa: S101 - asked by the caller
    try:
        row.control(stage)
    except NotHeldError as error:
        return RowVerdict.GREEN, _line(error)
    return RowVerdict.RED, "the check is passed by what it should refuse: it shows nothing"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:_SHOWN]
