"""Replay: live through a past day again, event by event and impression by impression."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.workspace.base import WorkspacePanel, day_of

if TYPE_CHECKING:
    from uic.jobs.replay.client import RankingClient
    from uic.jobs.replay.hold_back import HeldBack
    from uic.jobs.replay.reset import ResetPlan


class ReplayPanel(WorkspacePanel):
    """Methods of `Workspace.replay`."""

    def hold_back(self, day: date | str) -> "HeldBack":
        """Take the behaviours of a day and later out of an imported log, for the replay.

        Raises:
            ReplayError: the log has no such day, no impressions on it, or more than one import.
        """
        from uic.jobs.replay.hold_back import hold_back
        from uic.jobs.replay.run import FOLDER

        return hold_back(self.context.log, self.path / FOLDER, day_of(day, "day"))

    def plan_reset(self) -> "ResetPlan":
        """What would go, were the workspace made as it was before its replay.

        Returns:
            A plan: `lines()` says what goes, `carry_out()` does it.

        Raises:
            ReplayError: no day is held back, or the log holds more than the replay added.
        """
        from uic.jobs.replay.reset import plan_reset
        from uic.jobs.replay.run import FOLDER

        return plan_reset(self.path, self.path / FOLDER)

    def undo(self) -> int:
        """Put the held day and later ones back into the log, after a reset.

        Returns:
            Events that came back.

        Raises:
            ReplayError: no day is held back, or epochs of the replay are in the log.
        """
        from uic.jobs.replay.reset import undo
        from uic.jobs.replay.run import FOLDER

        return undo(self.path, self.path / FOLDER)

    def begin(self, *, url: str | None = None, stretches: int = 48, to: str = "files") -> int:
        """Rank the day with the memories of midnight, and write its first events.

        Args:
            url: of the service; None: `serve.port` on loopback.
            stretches: the day in so many pieces.
            to: files, or kafka.

        Returns:
            Events of the first stretch.

        Raises:
            ReplayError: no day was held back, or the service does not answer.
        """
        from uic.jobs.replay.destination import destination_of
        from uic.jobs.replay.run import begin

        destination = destination_of(self.context, to)
        with self._client(url) as client:
            return begin(self.context, client, stretches, destination)

    def run(
        self,
        *,
        url: str | None = None,
        stretches: int = 48,
        to: str = "files",
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Append the day's events, and rank each impression with the memory of its moment.

        Args:
            url: as in `begin`.
            stretches: as in `begin`.
            to: as in `begin`.
            progress: told the impressions that were ranked.

        Returns:
            What is written to `replay/replay.json`: AUC, latency, freshness.

        Raises:
            ReplayError: `begin` was not called, or stream or service do not answer.
        """
        from uic.jobs.replay.destination import destination_of
        from uic.jobs.replay.run import run

        destination = destination_of(self.context, to)
        report = partial(progress or no_progress, "impressions ranked")
        with self._client(url) as client:
            return run(self.context, client, stretches, destination, report)

    @contextmanager
    def _client(self, url: str | None) -> "Iterator[RankingClient]":
        from uic.jobs.replay.client import RankingClient

        serve = self.config.serve
        token = None if serve.token is None else serve.token.get_secret_value()
        client = RankingClient(url or f"http://127.0.0.1:{serve.port}", token, self.ids)
        try:
            yield client
        finally:
            client.close()
