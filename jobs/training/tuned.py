"""What `uic tune` found, for `uic train --tuned` and `uic experiment --tuned`."""

import json
from datetime import date
from pathlib import Path
from typing import Any

from uic.jobs.config.context import Context
from uic.models.errors import BadInputError
from uic.models.training.run_spec import Days


def tuned_path(context: Context, model: str, samples: str) -> Path:
    """Where the best settings of a model for samples are kept."""
    return context.workspace / "tuning" / f"{model}-{samples}.json"


def tuned_assignments(context: Context, model: str, samples: str) -> list[str]:
    """What a search found, as `key=value`.

    Raises:
        BadInputError: there was none, or its file is damaged.
    """
    return [str(text) for text in _found(context, model, samples)["settings"]]


def check_test_unseen(context: Context, model: str, samples: str, days: Days) -> None:
    """Refuse test days that a search chose its settings by: their metrics would be flattered.

    Raises:
        BadInputError: names the days; or there was no search, or its file is damaged.
    """
    validation = [date.fromisoformat(day) for day in _found(context, model, samples)["validation"]]
    if days.test is None:
        return
    first, last = days.test
    if validation[0] <= last and first <= validation[-1]:
        msg = (
            f"--tuned: uic tune {model} chose these settings by {validation[0]} to "
            f"{validation[-1]}, and the test is {first} to {last}: search with the --last and "
            "--test-days of the run, or test on later days"
        )
        raise BadInputError(msg)


def _found(context: Context, model: str, samples: str) -> dict[str, Any]:
    path = tuned_path(context, model, samples)
    command = f"uic tune {model} --samples {samples}"
    if not path.is_file():
        msg = f"--tuned: no search of {model} for samples {samples} in {path}; run `{command}`"
        raise BadInputError(msg)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {"settings": list(document["settings"]), "validation": [*document["validation"]]}
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path}: not what a search writes ({error}); run `{command}` again"
        raise BadInputError(msg) from error
