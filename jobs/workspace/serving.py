"""Serving and looking around: the ranking service, its reload, the doctor and the report."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uic.jobs.config.context import Context
from uic.jobs.workspace.base import WorkspacePanel
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.jobs.checks.doctor import Finding
    from uic.jobs.serving.http.api import RankAnswer
    from uic.jobs.workspace.ranking import LocalRanker


class ServingPanel(WorkspacePanel):
    """Methods that rank, serve rankings, and show what a workspace has."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._rankers: dict[tuple[str, str], LocalRanker] = {}

    def rank(
        self,
        user: int | str,
        items: Sequence[int] | Sequence[str],
        k: int | None = None,
        *,
        bundle: str = "mimn",
        history_from: str = "store",
        explain: bool = False,
        context: Mapping[str, Any] | None = None,
        moment: datetime | None = None,
    ) -> "RankAnswer":
        """Score candidates for a user, as the service answers POST /v1/rank, without HTTP.

        The bundle is loaded by the first call and kept until `close`; torch then runs on one
        thread, as in a worker of the service. An answer without a memory says `degraded` and why.

        Args:
            user: id, as the log's own system has it: a text where it was imported with texts.
            items: candidates, as well; repeated ones count once.
            k: how many to return, best first; None: all.
            bundle: a path, MODEL/VERSION, or MODEL for its current version.
            history_from: store, for memories; log, for stored sequences.
            explain: say of each item what the memory changes.
            context: features of the context by name: a value, or a list parallel to `items`.
            moment: when they are shown, with its zone; None: now. A record's ages are as of then,
                so on a log that ended long ago name a moment near its end.

        Raises:
            UicError: no such bundle, or it is damaged; a moment without a zone.

        Example:
            >>> workspace.rank(17, [1001, 1002, 1003], k=2).items[0].item_id
        """
        from uic.jobs.workspace.ranking import LocalRanker

        key = bundle, history_from
        if key not in self._rankers:
            self._rankers[key] = LocalRanker(self.context, bundle, history_from)
        return self._rankers[key].rank(
            user, items, k, explain=explain, context=context, moment=moment
        )

    def close(self) -> None:
        """Give back what `rank` has opened; the next call opens it again."""
        while self._rankers:
            self._rankers.popitem()[1].close()

    def serve(
        self,
        bundle: str = "mimn",
        *,
        history_from: str = "store",
        prerank_bundle: str | None = None,
        host: str | None = None,
        port: int | None = None,
        workers: int | None = None,
        listening: Callable[[str, int], None] | None = None,
        ready: Callable[[], None] | None = None,
    ) -> None:
        """Rank over HTTP until SIGTERM.

        Args:
            bundle: a path, MODEL/VERSION, or MODEL to follow its current version.
            history_from: store, for memories; log, to compute interest in the request.
            prerank_bundle: adds the pre-rank; named as `bundle`.
            host: address; None: `serve.host`.
            port: 0 takes a free one; None: `serve.port`.
            workers: processes; None: `serve.workers`.
            listening: told address and port before the first request.
            ready: told, from a thread, when requests are answered.

        Raises:
            BadInputError: the address is taken, or an argument is wrong.
            UicError: there is no such bundle, or it cannot be served.
        """
        from uic.models.bundles.shelf import BundleShelf

        for reference in filter(None, (bundle, prerank_bundle)):
            BundleShelf(self.context.bundles).find(reference)  # loading libraries takes long
        from uic.jobs.serving.http.server import ServeRequest, listen, serve

        settings = self.config.serve
        if history_from not in {"store", "log"}:
            msg = f"--history-from {history_from}: expected store or log"
            raise BadInputError(msg)
        request = ServeRequest(
            str(self.path),
            None if self.context.config_path is None else str(self.context.config_path),
            bundle,
            history_from,
            prerank_bundle or "",
        )
        listener = listen(host or settings.host, settings.port if port is None else port)
        if listening is not None:
            listening(*listener.getsockname()[:2])
        serve(request, listener, workers or settings.workers, ready)

    def reload(
        self, bundle: str | None = None, *, url: str | None = None, wait_seconds: float = 60.0
    ) -> str:
        """Make a bundle the current one and wait until the running service serves it.

        Args:
            bundle: MODEL/VERSION; None: the current one as it is.
            url: of the service; None: `serve.host` and `serve.port`.
            wait_seconds: until it must be served.

        Returns:
            `model/version` that is served.

        Raises:
            BadInputError: it is not served in time, or no service answers.
        """
        from uic.jobs.serving.http.reloading import reload_service

        settings = self.config.serve
        return reload_service(
            self.context.bundles,
            bundle,
            url or f"http://{settings.host}:{settings.port}",
            None if settings.token is None else settings.token.get_secret_value(),
            wait_seconds,
        )

    def doctor(self) -> "Iterator[Finding]":
        """Check packages, disk, Java, log, models, Redis and Kafka, and change nothing."""
        from uic.jobs.checks.doctor import examine

        return examine(self.context)

    def report(self) -> tuple[Path, Path]:
        """Write `reports/index.html`, one page of what has run, and its numbers as JSON.

        Returns:
            The page and the numbers.
        """
        from uic.jobs.report.page import write_report

        return write_report(self.context)
