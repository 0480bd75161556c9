"""What is published of the log: a part goes in, a publication comes out, or one of these errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uic.models.errors import BadInputError, UicError
from uic.pipelines.log.epochs import Epoch


class DuplicateImportError(UicError):
    """The log already holds what is to be imported."""


class BackfillError(BadInputError):
    """Behaviours were to be imported behind a topic, whose own events are ordered before them."""


class LogWriteError(UicError):
    """The log could not be written: a full disk, no permission. Nothing was published."""


@dataclass(frozen=True)
class Publication:
    """What was published; `overlap` is a sentence if an earlier epoch goes on into its days.

    `epoch` is None for impressions alone, which have no place in the order of behaviours.
    """

    epoch: Epoch | None
    behaviors: int
    impressions: int
    users: int
    items: int
    days: int
    bytes: int
    manifest: Path
    overlap: str | None = None


@dataclass(frozen=True)
class Part:
    """What the manifest says about a part of the log besides its files.

    Attributes:
        name: lower-case letters, digits, `-`, `_`; names the epoch of an import.
        sources: `name`, `bytes`, `sha256` of each input; an input is imported once.
        notes: what a reader has to know about the data, one sentence each.
        details: options of the run, JSON.
    """

    name: str
    sources: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
