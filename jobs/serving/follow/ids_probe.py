"""Whether the log's ids are still of the kind that a service was started with.

A text's number is computed, so texts of a new import need no look. But a service that was started
before the first import, or beside a log that was made anew, may take numbers where texts are due.
"""

import asyncio
from dataclasses import dataclass
from typing import Generic

from uic.jobs.serving.follow.follower import S
from uic.models.errors import UicError
from uic.pipelines.log.event_log import EPOCHS_NAME, EventLog
from uic.pipelines.log.text_ids import TextIds


class IdKindsError(UicError):
    """The log has texts where the service takes numbers, or the other way round."""


@dataclass
class IdsProbe(Generic[S]):
    """The kinds of ids.

    Args:
        log: of the workspace.
        ids: that the service takes.
        seen_ns: when the log had changed at the last good look.
    """

    log: EventLog
    ids: TextIds
    seen_ns: int | None = None
    name: str = "ids"

    async def look(self, current: S) -> None:  # noqa: ARG002 - see `ChangeProbe`
        """See `ChangeProbe`.

        Raises:
            IdKindsError: the service must be started again.
        """
        path = self.log.root / EPOCHS_NAME
        changed_ns = path.stat().st_mtime_ns if path.exists() else None
        if changed_ns == self.seen_ns:
            return
        found = await asyncio.to_thread(TextIds.of, self.log)
        if found.files.keys() != self.ids.files.keys():
            now, then = (", ".join(sorted(one.files)) or "none" for one in (found, self.ids))
            msg = (
                f"{self.log.root}: text ids of {now}; this service was started with {then}, and "
                "takes ids as they were: start it again"
            )
            raise IdKindsError(msg)
        self.seen_ns = changed_ns
