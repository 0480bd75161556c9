"""The steps of a day, and the order in which they are done, planned, or left out."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Final, Literal

from uic.models.errors import BadInputError, QualityGateError

STEPS: Final = (
    "compact", "forget", "clean", "snapshot", "prune", "audit", "check", "samples", "train",
)  # fmt: skip
# A gate that fails leaves out what would be made of the data that it judged.
_OF_SAMPLES: Final = ("check", "samples", "train")
# What makes a step's own look at the workspace worth nothing before it has run.
_FOLLOWS: Final = {"prune": ("snapshot",), "train": ("samples",), "audit": ("snapshot",)}


@dataclass(frozen=True)
class DailyRequest:
    """What a day's work is.

    Attributes:
        until: last day, which is over.
        samples: name of the samples that are made.
        days: of impressions, the last of which is `until`.
        train: model to train on them, from its current bundle if there is one; None: none.
        audit_rate: share of users that are audited.
        skip: names of steps that are left out.
    """

    until: date
    samples: str
    days: int
    train: str | None
    audit_rate: float
    skip: Collection[str]


@dataclass(frozen=True)
class DailyStep:
    """One step of a day, and what became of it.

    Attributes:
        name: one of `STEPS`.
        day: that it is for.
        state: ran; done, before this run; left out; failed, by a gate or an audit; or, of a dry
            run, to do.
        said: what came of it, or why it did not run.
    """

    name: str
    day: date
    state: Literal["ran", "done", "left out", "failed", "to do"]
    said: str


@dataclass(frozen=True)
class DailyWork:
    """A step that has not run.

    Attributes:
        name: one of `STEPS`.
        day: that it is for.
        done: says why it need not run; None if it has to.
        run: does it, and says what came of it.
        missing: why it cannot be done here; None if it can.
    """

    name: str
    day: date
    done: Callable[[], str | None]
    run: Callable[[], str]
    missing: str | None = None

    def unless_in(self, skip: Collection[str]) -> "DailyWork":
        """The same, left out if its name is one of `skip`."""
        return replace(self, missing="--skip") if self.name in skip else self

    def look(self) -> DailyStep:
        """What is known of the step before it runs: left out, done, or to do."""
        if self.missing is not None:
            return DailyStep(self.name, self.day, "left out", self.missing)
        done = self.done()
        return DailyStep(self.name, self.day, "to do" if done is None else "done", done or "")


Told = Callable[[DailyStep], None]


def never() -> None:
    """Nothing says that the step is done; run again, it leaves alone what is."""


def tell_no_reader(step: DailyStep) -> None:
    """Tell a step to no reader."""
    del step


def known_steps(skip: Collection[str]) -> Collection[str]:
    """The names of steps to leave out.

    Raises:
        BadInputError: there is no such step.
    """
    unknown = [name for name in skip if name not in STEPS]
    if unknown:
        msg = f"--skip {unknown[0]}: no such step; there is: {', '.join(STEPS)}"
        raise BadInputError(msg)
    return skip


def plan(works: Iterator[DailyWork], told: Told) -> list[DailyStep]:
    """What `do` would do; a step that follows from one to do is to do, too."""
    steps: list[DailyStep] = []
    waiting: set[str] = set()
    for work in works:
        step = work.look()
        if step.state == "done" and waiting & set(_FOLLOWS.get(work.name, ())):
            step = replace(step, state="to do", said="")
        if step.state == "to do":
            waiting.add(work.name)
        steps.append(step)
        told(step)
    return steps


def do(works: Iterator[DailyWork], told: Told) -> list[DailyStep]:
    """Do what is not done; what a gate refuses ends its branch alone, and is raised at the end.

    Args:
        works: in order; each is asked for when those before it have ended.
        told: each step when it has ended.

    Raises:
        QualityGateError: the first that a step raised.
        UicError: as the steps; nothing after it is done.
    """
    steps: list[DailyStep] = []
    failure: QualityGateError | None = None
    refused: str | None = None
    for work in works:
        step = work.look()
        if step.state != "left out" and refused and work.name in _OF_SAMPLES:
            step = replace(step, state="left out", said=f"{refused} failed")
        elif step.state == "to do":
            try:
                step = replace(step, state="ran", said=work.run())
            except QualityGateError as error:
                failure = failure or error
                refused = work.name if work.name in _OF_SAMPLES else refused
                step = replace(step, state="failed", said=str(error))
        steps.append(step)
        told(step)
    if failure is not None:
        raise failure
    return steps
