"""`uic store adopt`: a workspace takes a store over that another one has written into.

For a backup that was put back on another machine, and for a copy that goes on in the original's
place. What was written stays as it is. The log must be the one that the live generation has folded,
else its stream could not go on from here.
"""

from dataclasses import dataclass

from uic.feature_repo.store.claim import Claim
from uic.feature_repo.store.errors import EmptyStoreError
from uic.feature_repo.store.opened import OpenedStore, open_memories
from uic.feature_repo.store.tombstones import Tombstones
from uic.jobs.config.context import Context
from uic.jobs.stream.run.start_positions import ForeignEpochError, check_epochs_known
from uic.pipelines.log.event_log import EPOCHS_NAME, EventLog


@dataclass(frozen=True)
class Adoption:
    """What is taken over.

    Attributes:
        address: of the store.
        project: in it.
        other: the workspace that has written into it until now; None: no other one.
        holds: its generations, a line each.
        forgotten: users who were deleted on request there, and of whom this workspace knows
            nothing.
    """

    address: str
    project: str
    other: Claim | None
    holds: tuple[str, ...]
    forgotten: int


def plan_adoption(context: Context, *, without_its_log: bool) -> Adoption:
    """Look at what an adoption takes over; nothing is written.

    Args:
        context: workspace and configuration.
        without_its_log: take a store over whose live generation has folded another log.

    Raises:
        ForeignEpochError: it has, and that was not said to be meant.
        StoreError: the store does not answer.
    """
    with open_memories(context.config.store, context.workspace) as store:
        if not without_its_log:
            _refuse_another_log(context, store)
        holds = tuple(
            f"generation {one.number} ({one.state}) of {one.bundle_name}: {one.rows:,} users"
            for one in store.generations.all()
        )
        return Adoption(
            str(store.address),
            context.config.store.project,
            store.claim.other(),
            holds,
            len(set(_forgotten(store)) - set(Tombstones(context.workspace).ids().tolist())),
        )


def adopt(context: Context) -> None:
    """Make the store this workspace's, and its forgotten users, too.

    Raises:
        StoreError: the store does not answer, or does not take the write.
    """
    tombstones = Tombstones(context.workspace)
    with open_memories(context.config.store, context.workspace) as store:
        store.claim.take()
        for user in sorted(set(_forgotten(store)) - set(tombstones.ids().tolist())):
            tombstones.add(user)


def _forgotten(store: OpenedStore) -> list[int]:
    ids: list[int] = store.generations.forgotten().tolist()
    return ids


def _refuse_another_log(context: Context, store: OpenedStore) -> None:
    try:
        number = store.generations.live()
    except EmptyStoreError:
        return
    names = {epoch.number: epoch.name for epoch in EventLog(context.log).epochs()}
    live, marks = store.generations.get(number), store.generations.markers(number)
    try:
        check_epochs_known(live, marks, names, context.log / EPOCHS_NAME)
    except ForeignEpochError as error:
        msg = (
            f"{error}; to have the store all the same, and not to stream this generation: "
            "--without-its-log"
        )
        raise ForeignEpochError(msg) from error
