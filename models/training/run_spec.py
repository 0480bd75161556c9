"""What a training run is: model, hyper-parameters, days, seed. Two equal specs train equal weights.

`--set key=value` names a field of the model's settings or of `train`; the names are distinct.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from uic.models.errors import BadInputError
from uic.models.layers.ranker_settings import RankerSettings
from uic.models.rankers.catalogue import ModelKind, model_kind
from uic.models.settings import Section
from uic.models.training.defaults import DEFAULTS
from uic.models.training.settings import BLIND_EPOCHS, MOST_EPOCHS, TrainSettings

# With fewer days to train on besides, a day is worth more in training than as validation.
FEWEST_DAYS: Final = 4

SectionType = TypeVar("SectionType", bound=Section)


class SettingError(BadInputError):
    """A `--set` names no field, or its value does not fit the field."""


@dataclass(frozen=True)
class Days:
    """Which days a run trains on, chooses its epoch by, and is tested on; all inclusive.

    Attributes:
        first: first day to train on.
        last: last day to train on.
        test_first: first day of the test; None without a test.
        test_last: its last day.
        validation_first: first day that tells when to stop; None trains all epochs.
        validation_last: its last day.
    """

    first: date
    last: date
    test_first: date | None = None
    test_last: date | None = None
    validation_first: date | None = None
    validation_last: date | None = None

    @property
    def test(self) -> tuple[date, date] | None:
        """First and last day of the test."""
        return _pair(self.test_first, self.test_last)

    @property
    def validation(self) -> tuple[date, date] | None:
        """First and last day that tell when to stop."""
        return _pair(self.validation_first, self.validation_last)

    def document(self) -> dict[str, str]:
        """As JSON; a run without validation days is what it was before there were any."""
        days = {key: str(value) for key, value in asdict(self).items()}
        if self.validation is None:
            del days["validation_first"], days["validation_last"]
        return days


def _pair(first: date | None, last: date | None) -> tuple[date, date] | None:
    return None if first is None or last is None else (first, last)


@dataclass(frozen=True)
class RunSpec:
    """A training run.

    Attributes:
        model: name in `uic.models.rankers.catalogue`.
        settings: hyper-parameters of the model.
        training: batches, optimiser, vocabulary.
        days: to train and to test on.
        seed: of initial weights and of the shuffle.
        samples: name of the samples.
        samples_sha256: sum of their manifest.
        warm_start: hash of the bundle that weights were copied from, "" for none.
        except_ids: whether the embeddings were left out of the copy.
    """

    model: str
    settings: RankerSettings
    training: TrainSettings
    days: Days
    seed: int
    samples: str
    samples_sha256: str
    warm_start: str = ""
    except_ids: bool = False

    @property
    def kind(self) -> ModelKind:
        """The model's entry in the catalogue."""
        return model_kind(self.model)

    @property
    def epochs(self) -> int:
        """Passes over the training days: all of them, or with validation days at most so many."""
        unsaid = BLIND_EPOCHS if self.days.validation is None else MOST_EPOCHS
        return self.training.epochs or unsaid

    def identity(self) -> str:
        """Hex sum of everything that decides the weights, for checkpoints and caches."""
        document = {
            "settings": self.settings.model_dump(mode="json"),
            "training": self.training.document(),
            "days": self.days.document(),
            "rest": [self.model, self.seed, self.samples_sha256, self.warm_start, self.except_ids],
        }
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def split_days(
    days: list[date],
    first: date | None,
    last: date | None,
    test_days: int,
    where: str,
    *,
    validation_days: int | None = 0,
) -> Days:
    """The last `test_days` days with groups are the test, those before are trained on.

    Validation days are the last before the test. They are neither trained on nor tested: a test
    of weights that were trained on them, too, would not be of the weights that they chose.

    Args:
        days: that have groups, ascending.
        first: leave out days before; None for none.
        last: leave out days after; None for none.
        test_days: 0 trains on everything.
        where: name of the samples, for the message.
        validation_days: that tell when to stop; None is 1 where that leaves `FEWEST_DAYS` to train
            on, else 0.

    Raises:
        BadInputError: reversed, or too few days.
    """
    if first is not None and last is not None and first > last:
        msg = f"--first {first} is after --last {last}; swap them"
        raise BadInputError(msg)
    selected = [
        day for day in days if (first is None or day >= first) and (last is None or day <= last)
    ]
    if validation_days is None:
        validation_days = 1 if len(selected) > FEWEST_DAYS + test_days else 0
    kept = validation_days + test_days
    if len(selected) <= kept:
        span = f"{days[0]} to {days[-1]}" if days else "no day"
        chosen_by = f"{validation_days} for validation, " if validation_days else ""
        msg = (
            f"{where}: {len(selected)} days with samples between --first and --last, expected at "
            f"least {kept + 1} (1 to train on, {chosen_by}{test_days} to test on); it has {span}"
        )
        raise BadInputError(msg)
    train, rest = selected[: len(selected) - kept], selected[len(selected) - kept :]
    validation, test = rest[:validation_days], rest[validation_days:]
    return Days(train[0], train[-1], *_ends(test), *_ends(validation))


def _ends(days: list[date]) -> tuple[date | None, date | None]:
    return (days[0], days[-1]) if days else (None, None)


def apply_settings(
    model: str, training: TrainSettings, assignments: list[str]
) -> tuple[RankerSettings, TrainSettings]:
    """The settings of a model and of training with `key=value` assignments applied.

    Assignments win over what `training` was told, and that over the model's own defaults.

    Raises:
        SettingError: not `key=value`, an unknown key (lists the known), or a value out of range.
    """
    kind = model_kind(model)
    own_keys = kind.settings.keys()
    known = own_keys | frozenset(TrainSettings.model_fields)
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            msg = f"--set {assignment}: expected key=value"
            raise SettingError(msg)
        if key not in known:
            msg = f"--set {key}: {model} has no such setting; known: {', '.join(sorted(known))}"
            raise SettingError(msg)
        values[key] = _value(text)
    said = training.model_dump(exclude_unset=True)
    known_better = DEFAULTS.get(model, {})
    unsaid = {key: of for key, of in known_better.items() if key not in own_keys}
    own = {key: of for key, of in known_better.items() if key in own_keys}
    own |= {key: value for key, value in values.items() if key in own_keys}
    rest = {key: value for key, value in values.items() if key in TrainSettings.model_fields}
    return (
        section_from(kind.settings, own, "--set "),
        section_from(TrainSettings, {**unsaid, **said, **rest}, "--set "),
    )


def shared_assignments(model: str, assignments: Collection[str]) -> list[str]:
    """Those of several models' `key=value` that this one knows.

    Keys of a large memory are left out of a model that has none.
    """
    settings = model_kind(model).settings
    named = {text.partition("=")[0] for text in assignments}
    plugged = "memory" in named or getattr(settings(), "memory", None) is not None
    known = settings.keys() if plugged else frozenset(settings.model_fields)
    known |= frozenset(TrainSettings.model_fields)
    return [text for text in assignments if text.partition("=")[0] in known]


def section_from(kind: type[SectionType], values: dict[str, Any], where: str) -> SectionType:
    """Make a section, with a one-line error.

    Raises:
        SettingError: names the field, what was found and what was expected.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        reason = (
            f"unknown; known: {', '.join(sorted(kind.model_fields))}"
            if first["type"] == "extra_forbidden"
            else f"{first['msg'].removeprefix('Value error, ')} (found {first['input']!r})"
        )
        msg = f"{where}{field}: {reason}"
        raise SettingError(msg) from error


def _value(text: str) -> Any:
    """JSON where it is JSON (`[200, 80]`, `true`, `0.01`), else the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
