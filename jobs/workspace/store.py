"""The store of a workspace: the embedded Redis, its state, and stored histories."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.workspace.base import WorkspacePanel

if TYPE_CHECKING:
    from uic.feature_repo.store.connection import Address
    from uic.feature_repo.store.server import EmbeddedRedis, Running
    from uic.jobs.checks.adoption import Adoption


@dataclass(frozen=True)
class StoreStatus:
    """A store that answers.

    Attributes:
        address: where it is.
        redis_version: of the server.
        role: master or slave.
        sync: `appendfsync` of its append-only file; None: it has no such file.
        keys: in the database; count.
        used_bytes: of memory; None: this user may not run INFO.
    """

    address: "Address"
    redis_version: str
    role: str
    sync: str | None
    keys: int
    used_bytes: int | None


class StorePanel(WorkspacePanel):
    """Methods of `Workspace.store`."""

    def start(self) -> "Running":
        """Start Redis on loopback, every write synced to disk; it outlives this process.

        Returns:
            Its address and process. A server that runs already is left alone.

        Raises:
            StoreError: it does not start.
        """
        return self._embedded().start()

    def stop(self) -> bool:
        """Stop the embedded Redis; what it holds stays on disk.

        Returns:
            Whether it was running.
        """
        return self._embedded().stop()

    def status(self) -> StoreStatus:
        """Address, durability, memory and keys.

        Raises:
            StoreError: Redis does not answer, or would lose memories when it is full.
        """
        from uic.feature_repo.store.connection import (
            connect,
            refuse_eviction,
            resolve_address,
            server_facts,
        )
        from uic.feature_repo.store.errors import typed_errors

        address = resolve_address(self.config.store, self.path)
        with connect(address) as client, typed_errors(str(address)):
            refuse_eviction(client, address)
            facts = server_facts(client, str(address)) or {}
            synced = None
            if facts.get("aof_enabled"):
                synced = client.config_get("appendfsync").get("appendfsync", "unknown")
            keys = client.dbsize()
        return StoreStatus(
            address=address,
            redis_version=facts.get("redis_version", "unknown"),
            role=facts.get("role", "unknown"),
            sync=synced,
            keys=keys,
            used_bytes=facts.get("used_memory"),
        )

    def adoption(self, *, without_its_log: bool = False) -> "Adoption":
        """What `adopt` would take over; nothing is written.

        Args:
            without_its_log: the live generation may have folded another log than this one. It
                cannot be streamed from here then.

        Raises:
            ForeignEpochError: it has, and `without_its_log` is not said.
            StoreError: the store does not answer.
        """
        from uic.jobs.checks.adoption import plan_adoption

        return plan_adoption(self.context, without_its_log=without_its_log)

    def adopt(self) -> None:
        """Let this workspace write into the store from now on, and no other one.

        Raises:
            StoreError: the store does not answer.
        """
        from uic.jobs.checks.adoption import adopt

        adopt(self.context)

    def fill_sequences(self, *, progress: Progress | None = None) -> int:
        """Write the last 1,000 events of every user from the log (view `user_sequence`).

        Returns:
            Users whose sequence was written.

        Raises:
            StoreError: the store does not answer.
        """
        from uic.jobs.stream.fold.sequence_fill import fill_from_log
        from uic.pipelines.log.event_log import EventLog

        report = progress or no_progress
        return fill_from_log(
            EventLog(self.context.log),
            self.config.store,
            self.path,
            lambda done: report("users", done, None),
        )

    def _embedded(self) -> "EmbeddedRedis":
        from uic.feature_repo.store.connection import STORE_FOLDER
        from uic.feature_repo.store.server import EmbeddedRedis

        return EmbeddedRedis(self.path / STORE_FOLDER)
