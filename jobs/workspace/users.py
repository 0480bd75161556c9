"""Users: one user's memory, forgetting, stored histories, and the audit of all memories."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.workspace.base import WorkspacePanel
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.feature_repo.store.generation import Generation
    from uic.jobs.checks.audit import WorkspaceAudit
    from uic.jobs.checks.forgetting import Erased
    from uic.jobs.checks.user_view import UserView
    from uic.models.bundles.bundle import Bundle


@dataclass(frozen=True)
class UserMemory:
    """One user's memory as a generation has it.

    Attributes:
        generation: that it was read from.
        view: position, last event, channels.
        bundle: that folded it; None where it is not in the workspace.
        nearest: items a channel, best first, as the log's own system has them; None for a model
            without channels.
    """

    generation: "Generation"
    view: "UserView"
    bundle: "Bundle | None"
    nearest: list[list[int | str]] | None


class UsersPanel(WorkspacePanel):
    """Methods that look at what is kept of users, check it, and delete it."""

    def user(self, user: int | str, *, generation: int | None = None, items: int = 5) -> UserMemory:
        """One user's memory: position, age, channels, and the items nearest to each channel.

        Args:
            user: id, as the log's own system has it; a number inside is taken, too.
            generation: to look in; None: the live one.
            items: nearest items a channel; 0 for none.

        Raises:
            BadInputError: the generation does not have the user, or it is no id.
            StoreError: the store does not answer.
        """
        from uic.jobs.checks.user_view import find_bundle, nearest_items, view_record
        from uic.models.records.record import header_view
        from uic.pipelines.log.event_log import EventLog

        ids = self.ids
        user_id = ids.number("user", user)
        with self._open_store() as store:
            number = generation if generation is not None else store.live.resolve()
            details = store.generations.get(number)
            record, present = store.memories.read(number, [user_id])
            forgotten = bool((store.generations.forgotten() == user_id).any())
        if not present[0]:
            why = "was forgotten on request" if forgotten else "has no behaviour in it"
            msg = f"user {user}: unknown to generation {number}: {why}"
            raise BadInputError(msg)
        bundle = find_bundle(self.context.bundles, header_view(record)["bundle"][0].tobytes())
        view = view_record(record, bundle)
        items_file = EventLog(self.context.log).items_file() if items else None
        nearest = None
        if bundle is not None and items_file is not None:
            found = nearest_items(record, bundle, items_file, items)
            nearest = None if found is None else [ids.said("item", near) for near in found]
        return UserMemory(details, view, bundle, nearest)

    def generations_of(self, user: int | str) -> list[int]:
        """The generations that have a memory of a user.

        Raises:
            BadInputError: it is no id.
            StoreError: the store does not answer.
        """
        with self._open_store() as store:
            return store.generations.holding(self.ids.number("user", user))

    def forget(self, user: int | str) -> list[int]:
        """Delete a user in every generation, for good: a tombstone stays in workspace and store.

        The files of the workspace follow with `erase_forgotten`.

        Returns:
            The generations that had the user.

        Raises:
            BadInputError: it is no id.
            StoreClaimError: the store is another workspace's; nothing is noted.
            StoreError: the store does not answer; the workspace's tombstone stays.
        """
        from uic.feature_repo.store.errors import StoreClaimError, StoreError
        from uic.feature_repo.store.server import ServerError
        from uic.feature_repo.store.tombstones import Tombstones

        number, tombstones = self.ids.number("user", user), Tombstones(self.path)
        try:
            with self._store_to_write() as store:
                tombstones.add(number)
                return store.generations.forget(number)
        except (StoreClaimError, ServerError):
            raise  # the store is not this workspace's, and neither is the wish
        except StoreError:
            tombstones.add(number)
            raise

    def erase_forgotten(self) -> "list[Erased]":
        """Write the workspace's files anew without forgotten users.

        Those are log, snapshots, archive, dead letters, and what the service wrote down.

        Returns:
            The places that had some, with their rows.

        Raises:
            LogBusyError: another process writes to the log.
        """
        from uic.jobs.checks.forgetting import erase_forgotten

        return erase_forgotten(self.context)

    def audit(
        self,
        *,
        sample_rate: float | None = None,
        generation: int | None = None,
        ask_broker: bool = True,
        progress: Progress | None = None,
    ) -> "WorkspaceAudit":
        """Fold the log again, user by user, and compare the memories that are served with it.

        Writes `reports/audit.json`. `WorkspaceAudit.require_no_mismatch` raises for a mismatch.

        Args:
            sample_rate: share of users, more than 0, up to 1; None: `audit.sample_rate`.
            generation: only this one; None: ready, live and retired ones.
            ask_broker: whether a broker that does not answer keeps the audit from saying yes.
            progress: told the rows of the log that were read.

        Raises:
            BadInputError: the rate is out of range.
            AuditError: there is nothing to audit, or what it needs is gone.
        """
        from uic.jobs.checks.audit import audit_workspace

        settings = self.config.audit
        if sample_rate is not None:
            if not 0 < sample_rate <= 1:
                msg = (
                    f"--sample-rate {sample_rate:g}: no user would be audited; "
                    "expected more than 0, up to 1"
                )
                raise BadInputError(msg)
            settings = settings.model_copy(update={"sample_rate": sample_rate})
        report = progress or no_progress
        return audit_workspace(self.context, settings, generation, report, ask_broker=ask_broker)
