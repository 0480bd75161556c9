"""Ranking in this process: the service's own parts, without HTTP.

A ranker holds a service that does not listen. Its event loop runs in a thread of its own, so that
a notebook, which has a loop already, can call it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from uic.jobs.config.context import Context
from uic.jobs.serving.http.answers import answer_of, ordered_by
from uic.jobs.serving.http.api import MOMENTS_MS, RankAnswer
from uic.jobs.serving.http.ids import RequestIds
from uic.jobs.serving.http.service import Service
from uic.jobs.serving.read.metrics import metrics_of_process
from uic.jobs.serving.score.context import RequestContext
from uic.models.errors import BadInputError


class LocalRanker:
    """Ranks as `uic serve` does; call `close` at the end.

    Args:
        context: workspace and configuration.
        bundle: a path, MODEL/VERSION, or MODEL for its current version; loaded once.
        history_from: store, for memories; log, for stored sequences.

    Raises:
        UicError: no such bundle, it is damaged, or the store does not answer when Feast's
            registry is made.
    """

    def __init__(self, context: Context, bundle: str, history_from: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="uic-rank")
        self._runner = asyncio.Runner()
        self._service = Service.open(
            context, bundle, metrics_of_process(), history_from=history_from
        )

    def rank(
        self,
        user: int | str,
        items: Sequence[int] | Sequence[str],
        k: int | None = None,
        *,
        explain: bool = False,
        context: Mapping[str, Any] | None = None,
        moment: datetime | None = None,
    ) -> RankAnswer:
        """The answer of POST /v1/rank; a store that is away makes it `degraded`.

        Raises:
            BadInputError: an id is none of the log's; a moment without a zone, or out of range.
        """
        return self._thread.submit(
            lambda: self._runner.run(
                self._rank(user, items, k, explain=explain, context=context, moment=moment)
            )
        ).result()

    def close(self) -> None:
        """Close connections and end the thread."""
        self._thread.submit(lambda: self._runner.run(self._service.stop())).result()
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    async def _rank(
        self,
        user: int | str,
        items: Sequence[int] | Sequence[str],
        k: int | None,
        *,
        explain: bool,
        context: Mapping[str, Any] | None,
        moment: datetime | None,
    ) -> RankAnswer:
        number = self._service.ids.number
        ids = RequestIds(user, items, number("user", user), [number("item", one) for one in items])
        asked = RequestContext.of(context, ids.items, ids.distinct)
        ranked = await self._service.engine.rank(
            ids.user,
            ids.distinct,
            explain=explain,
            context=asked,
            moment_ms=None if moment is None else _milliseconds(moment),
        )
        order_by = self._service.settings.order_by
        ranked = ordered_by(ranked, order_by, self._service.metrics)
        answer = answer_of(ids.user, ranked, k, ids.duplicates, order_by)
        return RankAnswer.model_validate(ids.told(answer))


def _milliseconds(moment: datetime) -> int:
    least, most = MOMENTS_MS
    if moment.tzinfo is None or not least <= (found := round(moment.timestamp() * 1000)) <= most:
        msg = f"moment: found {moment}, expected a time with its zone, 1990 to 9999"
        raise BadInputError(msg)
    return found
