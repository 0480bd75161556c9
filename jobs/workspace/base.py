"""What the panels of `Workspace` share: the context, the store, days and folders."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uic.jobs.config.config import Config
from uic.jobs.config.context import Context
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.feature_repo.store.opened import OpenedStore
    from uic.pipelines.log.text_ids import TextIds


class WorkspacePanel:
    """One panel of methods on a workspace.

    Args:
        context: folders and configuration.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    @property
    def path(self) -> Path:
        """The workspace's folder."""
        return self.context.workspace

    @property
    def config(self) -> Config:
        """The effective configuration."""
        return self.context.config

    @property
    def ids(self) -> "TextIds":
        """Ids as the log's own system has them, to numbers and back.

        Raises:
            TextIdsError: the log's table of text ids is not what it has to be.

        Example:
            >>> workspace.ids.number("user", "customer 17")
        """
        from uic.pipelines.log.event_log import EventLog
        from uic.pipelines.log.text_ids import TextIds

        return TextIds.of(EventLog(self.context.log))

    def _open_store(self) -> "AbstractContextManager[OpenedStore]":
        """The memories of the workspace's store."""
        from uic.feature_repo.store.opened import open_memories

        return open_memories(self.config.store, self.path)

    def _store_to_write(self) -> "AbstractContextManager[OpenedStore]":
        """The same, for what writes: it refuses a store that is another workspace's."""
        from uic.feature_repo.store.opened import open_for_writing

        return open_for_writing(self.config.store, self.path)


def day_of(day: date | str, name: str) -> date:
    """A day given as a date or as YYYY-MM-DD.

    Raises:
        BadInputError: the text is no day.
    """
    if isinstance(day, date):
        return day
    try:
        return date.fromisoformat(day)
    except ValueError as error:
        msg = f"{name}: found {day!r}, expected a day like 2025-11-11"
        raise BadInputError(msg) from error


def folder_of(root: Path, reference: str | Path, name: str) -> Path:
    """The folder of a name under `root`, or of a path.

    Raises:
        BadInputError: neither is a folder.
    """
    for candidate in (root / reference, Path(reference)):
        if candidate.is_dir():
            return candidate
    msg = f"{name} {reference}: no such folder, neither here nor in {root}"
    raise BadInputError(msg)


def refuse_name(name: str) -> None:
    """Refuse a name that would not be one folder in a folder of the workspace.

    Raises:
        BadInputError: it is empty, hidden, or a path.
    """
    if not name or name.startswith(".") or "/" in name:
        msg = f"--out: found {name!r}, expected a name without / that does not begin with a dot"
        raise BadInputError(msg)


def assignments(settings: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Settings as `key=value` texts."""
    if isinstance(settings, Mapping):
        return [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return list(settings)
