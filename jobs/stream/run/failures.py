"""Why an attempt failed, out of what Java and its workers left behind.

An error crosses from a Python worker through Java as the text of a traceback. There its type stands
with its module (`uic.feature_repo.store.errors.StoreFellBehindError: …`), which is looked up again:
what the error means for the stream is asked of the class.
"""

import contextlib
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uic.jobs.stream.run.attempt import FAILURE_FILE
from uic.models.errors import UicError

_OWN_ERROR: Final = re.compile(
    r"\b(?P<module>(?:uic\.)?(?:feature_repo|jobs|models|pipelines)(?:\.\w+)*)\.(?P<name>\w+Error)"
    r": (?P<text>[^\n]*)"
)


@dataclass(frozen=True)
class Failure:
    """Why something of an attempt failed.

    Args:
        reason: in one line.
        error: the type of the error, if it is one of ours.
    """

    reason: str
    error: type[UicError] | None = None

    @property
    def ends_attempt(self) -> bool:
        """Whether a restart by Flink from its checkpoint is of no use."""
        return self.error is not None and not self.error.passing

    @property
    def ends_run(self) -> bool:
        """Whether another attempt is of no use either, until something is put right by hand."""
        return self.error is not None and not (self.error.passing or self.error.replanned)


def read_failure(text: str) -> Failure:
    """What a stack trace of Java around one of Python says.

    Of several errors of ours, one that a restart cannot mend comes first, then the last in the
    text, which is the one that was raised.
    """
    own = [
        Failure(f"{match['name']}: {match['text']}", _type_of(match["module"], match["name"]))
        for match in _OWN_ERROR.finditer(text)
    ]
    if own:
        return next((failure for failure in own if failure.ends_attempt), own[-1])
    if text.startswith("An error occurred while calling") and "\n" not in text.strip():
        return Failure("its Java process is gone")  # what Py4J says of a lost connection
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    return Failure((causes or lines or ["no reason was given"])[-1][:400])


def _type_of(module: str, name: str) -> type[UicError] | None:
    """The class of that name, if this version of the program has it."""
    with contextlib.suppress(ImportError):
        module = module if module.startswith("uic.") else f"uic.{module}"
        error = getattr(importlib.import_module(module), name, None)
        if isinstance(error, type) and issubclass(error, UicError):
            return error
    return None


def failure_of(run_folder: Path) -> Failure:
    """Why an attempt's process ended."""
    for name in (FAILURE_FILE, "out.log"):
        with contextlib.suppress(OSError):
            text = (run_folder / name).read_text(encoding="utf-8", errors="replace")
            if text.strip():
                return read_failure(text)
    return Failure(f"its process was killed; logs are in {run_folder}")
