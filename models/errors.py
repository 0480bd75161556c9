"""Errors are types: one class for each broken promise, each with the exit status of its command.

The text of an error is one line: what was found, what was expected, what to do. A message that
concerns a file or a field names it. `uic.jobs.cli` prints the line and exits with `exit_code`.
"""

from typing import ClassVar


class UicError(Exception):
    """Anything a user can put right; ends a command with one line and `exit_code`."""

    exit_code: ClassVar[int] = 2
    # Whether the same step may succeed a little later, with nothing put right by hand.
    passing: ClassVar[bool] = False
    # Whether a new attempt of the stream, planned afresh from the store's markers, gets past it:
    # waiting does not help, and a restart from Flink's checkpoint does not either.
    replanned: ClassVar[bool] = False


class BadInputError(UicError):
    """A file, a column, an argument or a setting is not what it has to be."""


class ManifestError(UicError):
    """A published directory has no manifest, or one that does not fit its files or this code."""


class QualityGateError(UicError):
    """A quality gate failed: nothing was published."""

    exit_code: ClassVar[int] = 3
