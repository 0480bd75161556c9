"""Memories: snapshots of the log, and generations in the store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from uic.jobs.config.progress import Progress, no_progress, say_nothing
from uic.jobs.workspace.base import WorkspacePanel, day_of, folder_of
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.feature_repo.snapshots.snapshots import Snapshot
    from uic.feature_repo.store.generation import Generation
    from uic.feature_repo.store.opened import OpenedStore


@dataclass(frozen=True)
class LoadedMemories:
    """A snapshot that was loaded.

    Attributes:
        snapshot: that was loaded.
        generation: after it, ready to switch to.
        landed: users whose memory was newer than what was there; None if Feast wrote them.
    """

    snapshot: "Snapshot"
    generation: "Generation"
    landed: int | None


@dataclass(frozen=True)
class GenerationDetails:
    """What the store knows of a generation.

    Attributes:
        generation: state, users, bundle, snapshot.
        markers: epoch, partition → offset up to which it is folded.
        forgotten: users who were forgotten, in every generation.
        leaves_out: names of its exclude rules.
    """

    generation: "Generation"
    markers: Mapping[int, Mapping[int, int]]
    forgotten: int
    leaves_out: Sequence[str]


class MemoriesPanel(WorkspacePanel):
    """Methods that build, load and switch memories."""

    def build_memories(
        self,
        bundle: str | Path | None,
        until: date | str,
        *,
        start: str | Path | None = None,
        days: int | None = None,
        exclude: str | Path | None = None,
        generation: int | Literal["live"] | None = None,
        take_over: bool = True,
        runner: str = "DirectRunner",
        beam_arguments: Sequence[str] = (),
    ) -> "Snapshot":
        """Fold the event log into memories, in log order, up to and including a day.

        Args:
            bundle: that folds: MODEL/VERSION or MODEL of the workspace, or a path; None: that of
                the snapshot to start from.
            until: last day to fold, by log time.
            start: snapshot to start from: generation=NNN/dt=DAY, or a path; "latest" for the newest
                of the generation (or of the live one), which is the answer itself if it holds the
                log until that day already; None: from nothing.
            days: of a build from nothing; None: `memories.warm_up_days`.
            exclude: YAML list of rules for what is left out.
            generation: number, or "live"; None: the snapshot's, or the next.
            take_over: whether exact parts may come from another bundle's snapshot, as they are.
            runner: of Beam.
            beam_arguments: for Beam.

        Raises:
            BadInputError: days, snapshot, bundle and log do not fit each other.
            StoreError: "live" or "latest", and the store does not answer.
        """
        from uic.feature_repo.snapshots.snapshots import Snapshot
        from uic.feature_repo.store.tombstones import Tombstones
        from uic.pipelines.memories.build import MemoriesRequest, build_memories
        from uic.pipelines.memories.exclude import load_rules

        memories, last = self.context.memories, day_of(until, "until")
        number = self._live() if generation == "live" else generation
        first: Snapshot | None = None
        if start == "latest":
            first = self._latest(self._live() if number is None else number, last)
            if first.manifest["until"] >= last.isoformat() and exclude is None:
                return first
        elif start is not None:
            first = Snapshot.open(folder_of(memories, start, "--from"))
        if bundle is None:
            if first is None:
                msg = "--bundle: needed for a build from nothing; MODEL/VERSION of the workspace"
                raise BadInputError(msg)
            bundle = str(first.manifest["bundle"])
        request = MemoriesRequest(
            log=self.context.log,
            memories=memories,
            bundle=self._bundle(bundle),
            until=last,
            time_zone=self.config.time_zone,
            memories_settings=self.config.memories,
            sale=self.config.sale,
            start=None if first is None else first.path,
            days=days,
            rules=() if exclude is None else load_rules(Path(exclude), self.ids),
            generation=number,
            take_over=take_over,
            forgotten=tuple(Tombstones(self.path).ids().tolist()),
        )
        return build_memories(request, runner, beam_arguments)

    def snapshots(self) -> "list[Snapshot]":
        """Published snapshots of the workspace."""
        from uic.feature_repo.snapshots.snapshots import list_snapshots

        return list_snapshots(self.context.memories)

    def load(
        self,
        snapshot: str | Path | None = None,
        *,
        by_feast: bool = False,
        progress: Progress | None = None,
    ) -> LoadedMemories:
        """Load a snapshot into the store until its generation is ready to switch to.

        Can be repeated and interrupted, beside readers and a stream job: of each user the memory
        with the larger position stays.

        Args:
            snapshot: generation=NNN/dt=DAY, or a path; None: the newest.
            by_feast: let `feast materialize` write the rows; slower.
            progress: told the rows that were written.

        Raises:
            BadInputError: no such snapshot.
            StoreError: the store does not answer, or its number is taken.
        """
        from uic.feature_repo.snapshots.published_values import point_current_to
        from uic.feature_repo.snapshots.snapshots import Snapshot
        from uic.feature_repo.store.tombstones import Tombstones

        if snapshot is None:
            chosen = self._newest_snapshot()
        else:
            chosen = Snapshot.open(folder_of(self.context.memories, snapshot, "SNAPSHOT"))
        report = partial(progress or no_progress, f"loading {chosen.name}")
        with self._store_to_write() as store:
            Tombstones(self.path).tell(store.generations)
            point_current_to(chosen.path)
            landed = None
            if by_feast:
                report(0, None)
                self._materialize(store, chosen)
            else:
                landed = _load(store, chosen, report)
            return LoadedMemories(chosen, store.generations.get(chosen.generation), landed)

    def generations(self) -> "list[Generation]":
        """Every generation of the store.

        Raises:
            StoreError: the store does not answer.
        """
        with self._open_store() as store:
            return store.generations.all()

    def live_generation(self) -> int | None:
        """Number of the generation that readers read; None: the store is empty.

        Raises:
            StoreError: the store does not answer.
        """
        from uic.feature_repo.store.errors import EmptyStoreError

        with self._open_store() as store:
            try:
                return store.generations.live()
            except EmptyStoreError:
                return None

    def generation(self, number: int) -> GenerationDetails:
        """What the store knows of a generation.

        Raises:
            StoreError: there is none of this number, or the store does not answer.
        """
        from uic.pipelines.memories.exclude import Exclusion

        with self._open_store() as store:
            generation = store.generations.get(number)
            markers = store.generations.markers(number)
            forgotten = len(store.generations.forgotten())
        exclusion = Exclusion.from_json(generation.exclude or {})
        names = [rule.name or "unnamed rule" for rule in exclusion.rules]
        if exclusion.sale_edges_ms:
            names.append(f"{len(exclusion.sale_edges_ms) // 2} sale days")
        return GenerationDetails(generation, markers, forgotten, names)

    def switch(self, generation: int) -> float:
        """Make a ready or retired generation the one that readers read.

        A generation that `feast materialize` has loaded is held against its snapshot first.

        Returns:
            Seconds until all readers turn together.

        Raises:
            StoreError: it is not ready, or the store does not answer.
        """
        from uic.feature_repo.snapshots.published_values import point_live_to
        from uic.feature_repo.snapshots.snapshots import Snapshot
        from uic.feature_repo.store.generations import State

        with self._store_to_write() as store:
            found = store.generations.get(generation)
            if found.state is State.LOADING:
                snapshot = Snapshot.open(self.context.memories / found.snapshot)
                store.generations.complete(generation, snapshot.ids(), snapshot.name)
            seconds = store.generations.switch(generation, self.config.store.switch_delay_seconds)
            point_live_to(self.context.memories, generation)
            return seconds

    def drop(self, generation: int, *, progress: Progress | None = None) -> int:
        """Delete a generation that is not read; may be interrupted and repeated.

        Returns:
            Memories that were deleted.

        Raises:
            StoreError: it is live, or the store does not answer.
        """
        report = progress or no_progress
        deleted = 0
        with self._store_to_write() as store:
            rows = store.generations.get(generation).rows
            rate = self.config.store.drop_keys_per_second
            for deleted in store.generations.drop(generation, rate):
                report(f"dropping generation {generation}", deleted, rows)
        return deleted

    def prunable(self, keep: int | None = None) -> "list[Snapshot]":
        """The snapshots that `prune` would remove."""
        from uic.pipelines.memories.prune import prunable_snapshots

        settings = self.config.memories
        return prunable_snapshots(self.context.memories, keep or settings.snapshots_kept)

    def prune(self, keep: int | None = None) -> "list[Snapshot]":
        """Remove all but the newest snapshots of each generation; None: `memories.snapshots_kept`.

        Returns:
            What was removed.
        """
        from uic.pipelines.memories.prune import prune_snapshots

        return prune_snapshots(self.context.memories, keep or self.config.memories.snapshots_kept)

    def upgrade(
        self,
        bundle: str | Path,
        *,
        max_lag: int = 1000,
        say: Callable[[str], None] | None = None,
    ) -> int:
        """Build, load, catch up and switch to memories of a new bundle, without a pause.

        May be cut off at any time; the same call goes on.

        Args:
            bundle: MODEL/VERSION of the workspace, or a path.
            max_lag: events that the new generation may lag when readers turn.
            say: told each step.

        Returns:
            The generation that is live now.

        Raises:
            CatchUpError: the stream of the new generation does not catch up.
            UicError: as the steps.
        """
        from uic.jobs.stream.run.upgrade import CatchUp, UpgradeOptions, upgrade

        options = UpgradeOptions(self._bundle(bundle), CatchUp(max_lag))
        return upgrade(self.context, options, say or say_nothing)

    def _bundle(self, bundle: str | Path) -> Path:
        from uic.models.bundles.shelf import BundleShelf

        return BundleShelf(self.context.bundles).find(str(bundle))

    def _live(self) -> int:
        number = self.live_generation()
        if number is None:
            msg = "no generation is live; `uic memories load` and `uic memories switch` one first"
            raise BadInputError(msg)
        return number

    def _latest(self, generation: int, until: date) -> "Snapshot":
        """The snapshot of a generation to go on from."""
        from uic.pipelines.log.event_log import EventLog
        from uic.pipelines.memories.nightly import newest_before

        mine = [one for one in self.snapshots() if one.generation == generation]
        newest = newest_before(mine, until, EventLog(self.context.log))
        if newest is None:
            msg = (
                f"--from latest: {self.context.memories} has no snapshot of generation "
                f"{generation} to go on from; build one from nothing (leave out --from)"
            )
            raise BadInputError(msg)
        return newest

    def _newest_snapshot(self) -> "Snapshot":
        snapshots = self.snapshots()
        if not snapshots:
            msg = f"{self.context.memories}: no snapshot; build one with `uic memories build`"
            raise BadInputError(msg)
        return max(snapshots, key=lambda one: (one.generation, one.manifest["until"]))

    def _materialize(self, store: "OpenedStore", snapshot: "Snapshot") -> None:
        from uic.feature_repo.plugin.repository import materialize_memories
        from uic.feature_repo.store.later_snapshot import move_on

        store.generations.register(snapshot.as_generation())
        materialize_memories(self.config.store, self.path, snapshot)
        store.generations.complete(snapshot.generation, snapshot.ids(), snapshot.name)
        move_on(snapshot.as_generation(), store.memories, store.generations)


def _load(
    store: "OpenedStore", snapshot: "Snapshot", report: Callable[[int, int | None], None]
) -> int:
    from uic.feature_repo.snapshots.published_values import load_values

    memories, generations = store.memories, store.generations
    loaded = load_values(snapshot, memories, generations, lambda rows: report(rows, snapshot.rows))
    return loaded.landed
