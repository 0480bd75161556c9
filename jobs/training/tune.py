"""`uic tune MODEL`: which settings learn best, by validation days that are not trained on.

1. Settings, samples and days; the test days are left out before anything else is read.
2. Refuse samples with too little to learn from.
3. Successive halving (`uic.models.training.search`). Each training is written to the journal when
   it is done, and one that was cut off goes on from its checkpoint.
4. Write the best so far, for `uic train MODEL --tuned`.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

from uic.jobs.config.context import Context
from uic.jobs.training.run import check_device, checkpoint_path, open_samples, with_images
from uic.jobs.training.tuned import tuned_path
from uic.models.errors import BadInputError
from uic.models.images.features import ImageFeatures
from uic.models.published import only_writer, write_json_atomically
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.defaults import searched
from uic.models.training.metrics import Metrics, auc_interval
from uic.models.training.run_spec import Days, RunSpec, apply_settings, split_days
from uic.models.training.search import Trial, best_of, draws, halving
from uic.models.training.trainer import (
    NonFiniteLossError,
    OutOfTimeError,
    StepReport,
    Trainer,
    Watcher,
)

FEWEST_CLICKS: Final = 100
FEWEST_VALIDATION_CLICKS: Final = 20


@dataclass(frozen=True)
class TuneRequest:
    """What to search; `uic.Workspace.tune` describes each field."""

    model: str
    samples: str
    assignments: Sequence[str] = ()
    first: date | None = None
    last: date | None = None
    test_days: int = 1
    validation_days: int = 1
    trials: int = 12
    minutes: float | None = None
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        model: name in the catalogue.
        samples: name of the samples.
        days: of the largest share.
        trials: every training that was finished, in the order of the search.
        best: of them.
        finished: whether the search came to its end.
        margin: what the validation days tell an AUC to, 95 %; a smaller gain may be chance.
        path: the file that `--tuned` reads.
    """

    model: str
    samples: str
    days: Days
    trials: Sequence[Trial]
    best: Trial
    finished: bool
    margin: float
    path: Path

    @property
    def assignments(self) -> list[str]:
        """What of the best settings differs from the defaults, as `--set` takes it."""
        return _texts(self.best.settings)

    @property
    def gain(self) -> float:
        """AUC over that of the defaults on the same share of the days, which are always tried."""
        share = [trial for trial in self.trials if trial.share == self.best.share]
        return self.best.auc - next(trial.auc for trial in share if not trial.settings)


Watch = Callable[[RunSpec, str], AbstractContextManager[Watcher]]
"""Shows a training: its spec, and a title."""
Tell = Callable[[Trial], None]


def tune(
    context: Context, request: TuneRequest, watch: Watch | None = None, tell: Tell | None = None
) -> Tuned:
    """Search; see the module.

    Args:
        context: of the workspace.
        request: what to search.
        watch: shows each training; None shows none.
        tell: told each trial that is done, also those of an earlier call.

    Raises:
        BadInputError: too little to learn from, another search of the same at work, or not one
            training finished in time.
    """
    search = _Search.begin(context, request, watch)  # steps 1 and 2
    trials: list[Trial] = []
    finished = True
    busy = BadInputError(f"{search.journal}: another search of the same is at work; wait for it")
    with only_writer(search.journal.with_suffix(".lock"), busy):
        search.done = _read_journal(search.journal)
        try:
            for trial in halving(search.candidates, search.train):  # step 3
                trials.append(trial)
                if tell is not None:
                    tell(trial)
        except OutOfTimeError:
            finished = False
    if not trials:
        msg = (
            f"not one training was finished in {request.minutes:g} minutes; say the same with more "
            "--minutes: it goes on where it was"
        )
        raise BadInputError(msg)
    return search.conclude(trials, finished=finished)  # step 4


@dataclass
class _Search:
    request: TuneRequest
    reader: SamplesReader
    spec: RunSpec  # of the defaults, on all training days
    images: ImageFeatures | None
    device: str
    context: Context
    now: dict[str, Any]  # the default of each key that is searched
    candidates: list[dict[str, Any]]
    journal: Path
    watch: Watch | None
    deadline: float
    done: dict[str, Trial] = field(default_factory=dict)

    @classmethod
    def begin(cls, context: Context, request: TuneRequest, watch: Watch | None) -> "_Search":
        reader = open_samples(context, request.samples)
        deadline = math.inf
        if request.minutes is not None:
            deadline = time.monotonic() + 60 * request.minutes
        settings, training = apply_settings(
            request.model, context.config.train, list(request.assignments)
        )
        settings, images = with_images(context, settings)
        days = split_days(
            reader.days(),
            request.first,
            request.last,
            request.test_days,
            str(reader.root),
            validation_days=request.validation_days,
        )
        _check_enough(reader, days)
        spec = RunSpec(
            model=request.model,
            settings=settings,
            training=training,
            days=replace(days, test_first=None, test_last=None),
            seed=request.seed,
            samples=reader.name,
            samples_sha256=reader.manifest_sha256(),
        )
        said = {text.partition("=")[0] for text in request.assignments}
        space = {key: of for key, of in searched(request.model).items() if key not in said}
        known = {**training.model_dump(mode="json"), **settings.model_dump(mode="json")}
        now = {key: known[key] for key in space}
        name = f"{request.model}-{request.samples}-{spec.identity()[:16]}.journal.json"
        return cls(
            request=request,
            reader=reader,
            spec=spec,
            images=images,
            device=check_device(request.device),
            context=context,
            now=now,
            candidates=draws(space, now, request.trials, request.seed),
            journal=context.workspace / "tuning" / name,
            watch=watch,
            deadline=deadline,
        )

    def train(self, settings: Mapping[str, Any], share: float) -> Trial:
        """One training, or what the journal has of it; one whose loss became infinite is the worst.

        Raises:
            OutOfTimeError: the minutes are over; the training goes on there the next time.
        """
        key = _key(settings, share)
        if key in self.done:
            return self.done[key]
        spec = self._spec(settings, share)
        checkpoint = checkpoint_path(self.context.workspace, spec)
        title = f"{self.request.model} {describe(settings)}, {share:.0%} of the days"
        shown = nullcontext(Watcher()) if self.watch is None else self.watch(spec, title)
        with shown as watcher:
            step = watcher.step

            def in_time(report: StepReport) -> None:
                step(report)
                # After a step: however few the minutes, each call is a step further.
                if time.monotonic() > self.deadline:
                    raise OutOfTimeError

            trainer = Trainer(
                self.reader,
                spec,
                device=self.device,
                checkpoint=checkpoint,
                watcher=replace(watcher, step=in_time),
                images=self.images,
            )
            try:
                areas = [epoch["auc"] or 0.0 for epoch in trainer.run().epochs]
            except NonFiniteLossError:
                areas = []
        trial = Trial(settings, share, max(areas, default=0.0), len(areas))
        self.done[key] = trial
        write_json_atomically(self.journal, [asdict(one) for one in self.done.values()])
        checkpoint.unlink(missing_ok=True)
        return trial

    def _spec(self, settings: Mapping[str, Any], share: float) -> RunSpec:
        """The run of some settings on the last days of training."""
        own, training = apply_settings(
            self.request.model,
            self.context.config.train,
            [*self.request.assignments, *_texts(settings)],
        )
        own, _ = with_images(self.context, own)
        days = self.spec.days
        there = [day for day in self.reader.days() if days.first <= day <= days.last]
        first = there[-math.ceil(share * len(there))]
        return replace(self.spec, settings=own, training=training, days=replace(days, first=first))

    def conclude(self, trials: Sequence[Trial], *, finished: bool) -> Tuned:
        best = best_of(trials)
        path = tuned_path(self.context, self.request.model, self.request.samples)
        document = {
            "model": self.request.model,
            "samples": self.request.samples,
            "samples_sha256": self.spec.samples_sha256,
            "validation": [str(day) for day in self.spec.days.validation or ()],
            # All that was searched, so that it stays what it was when defaults change.
            "settings": [*self.request.assignments, *_texts({**self.now, **best.settings})],
            "auc": best.auc,
            "share": best.share,
            "finished": finished,
            "trials": [asdict(trial) for trial in trials],
        }
        write_json_atomically(path, document)
        return Tuned(
            self.request.model,
            self.request.samples,
            self.spec.days,
            trials,
            best,
            finished,
            self._margin(best.auc),
            path,
        )

    def _margin(self, auc: float) -> float:
        """Half of the interval of an AUC on the validation days."""
        first, last = self.spec.days.validation or (None, None)
        _, clicked = self.reader.shown_items(BatchPlan(first=first, last=last))
        one = Metrics(auc, math.nan, math.nan, len(clicked), int(clicked.sum()), 0)
        low, high = auc_interval(one)
        return (high - low) / 2


def _texts(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def describe(settings: Mapping[str, Any]) -> str:
    """Settings in a word or a line."""
    return " ".join(_texts(settings)) or "defaults"


def _key(settings: Mapping[str, Any], share: float) -> str:
    return json.dumps([settings, share], sort_keys=True)


def _read_journal(path: Path) -> dict[str, Trial]:
    """What an earlier call of the same search has trained.

    Raises:
        BadInputError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        trials = [Trial(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
        return {_key(trial.settings, trial.share): trial for trial in trials}
    except (ValueError, TypeError) as error:
        msg = f"{path}: not a journal of a search ({error}); remove it to search anew"
        raise BadInputError(msg) from error


def _check_enough(reader: SamplesReader, days: Days) -> None:
    """Refuse days that tell too little.

    Raises:
        BadInputError: says what there is, and what to do.
    """
    validation = days.validation
    if validation is None:
        msg = "--validation-days 0: a search needs a day to choose by; say 1 or more"
        raise BadInputError(msg)
    for kind, (first, last), fewest, more in (
        ("training", (days.first, days.last), FEWEST_CLICKS, "with an earlier --first"),
        ("validation", validation, FEWEST_VALIDATION_CLICKS, "with --validation-days"),
    ):
        _, clicked = reader.shown_items(BatchPlan(first=first, last=last))
        clicks = int(clicked.sum())
        if min(clicks, len(clicked) - clicks) < fewest:
            msg = (
                f"{reader.root}: {clicks:,} clicks in {len(clicked):,} impressions on the {kind} "
                f"days {first} to {last}, a search needs at least {fewest} clicks and as many "
                f"others; take more days {more}, or larger samples"
            )
            raise BadInputError(msg)
