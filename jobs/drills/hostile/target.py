"""A small installation to attack: a workspace of its own, with log, model, memories and a store.

Everything in it is real but for two things: its model was never trained, and what streams into it
is folded by the stream's function without Flink, which only the drill's long rows start.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import yaml

from uic.feature_repo.store.opened import OpenedStore, open_memories
from uic.feature_repo.store.settings_file import CONFIG_NAME
from uic.jobs.drills.hostile.row import require
from uic.jobs.drills.trial import untrained_bundle
from uic.jobs.stream.fold.fold_function import FoldFunction
from uic.jobs.stream.letters.archive import epoch_folder
from uic.jobs.stream.letters.compact import archive_of
from uic.jobs.stream.topics.event_files import LoggedPayload, line_of
from uic.jobs.stream.topics.produce import payload_of
from uic.jobs.workspace.workspace import Workspace
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.memory.fold import MemoryFolder
from uic.models.records.record import Records
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.events import EventParser

MODEL: Final = "mimn"
GENERATION: Final = 1
_DAYS: Final = 3
_ITEMS: Final = 100
_CATEGORIES: Final = 20
# Short delays, and patience with a busy machine: what is slow is not to look like a fault.
_SETTINGS: Final[dict[str, Any]] = {
    "store": {"pointer_refresh_seconds": 0.1, "switch_delay_seconds": 0.2},
    "stream": {"source": "files"},  # no broker is asked
    "memories": {"buckets": 2},
    "audit": {"sample_rate": 1.0, "feast_users": 5},
    "serve": {
        "watch_seconds": 0.1,
        "swap_delay_seconds": 0.3,
        "drain_seconds": 0.0,
        "store_timeout_ms": 5_000,
        "request_timeout_ms": 20_000,
        "head_seconds": 2.0,
        "body_seconds": 2.0,
        "max_in_flight": 8,
    },
}


@dataclass(frozen=True)
class AttackTarget:
    """An installation whose store runs.

    Args:
        workspace: its front door.
        users: with a memory, ascending.
        items: of its table.
    """

    workspace: Workspace
    users: tuple[int, ...]
    items: tuple[int, ...]

    @property
    def path(self) -> Path:
        """The workspace's folder."""
        return self.workspace.path

    @property
    def log(self) -> EventLog:
        """Its log."""
        return EventLog(self.workspace.context.log)

    @property
    def shelf(self) -> BundleShelf:
        """Its bundles."""
        return BundleShelf(self.workspace.context.bundles)

    @property
    def day(self) -> datetime:
        """Noon of the day after the last that was imported."""
        noon = datetime(2025, 1, 1, 12, tzinfo=UTC)  # the simulator's first day
        return noon + timedelta(days=_DAYS)

    @contextmanager
    def store(self) -> Iterator[OpenedStore]:
        """Its memories."""
        with open_memories(self.workspace.config.store, self.path) as store:
            yield store

    def memory(self, user: int) -> Records | None:
        """(1, record_bytes) of the live generation; None for a user it does not know."""
        with self.store() as store:
            records, found = store.memories.read(GENERATION, [user])
            return records if found[0] else None

    def put(self, user: int, value: bytes) -> None:
        """Overwrite a memory behind the store's back."""
        with self.store() as store:
            store.client.set(store.memories.keys.entities(GENERATION, [user])[0], value)

    def faults(self) -> list[str]:
        """What an audit of all users finds."""
        return [
            fault
            for one in self.workspace.audit(sample_rate=1.0).generations
            for fault in one.faults()
        ]

    def require_right(self) -> str:
        """Audit all users; what it says.

        Raises:
            NotHeldError: it finds a fault.
        """
        faults = self.faults()
        require(not faults, f"audit: {'; '.join(faults)}")
        return "audit: every memory is what the log says"

    def clicks(self, first: int, after_ms: Sequence[int]) -> list[LoggedPayload]:
        """A click at each offset from `first`, logged so long after noon, of users in turn."""
        noon = int(self.day.timestamp() * 1000)
        rows = []
        for at, after in enumerate(after_ms, first):
            user, item = self.users[at % len(self.users)], self.items[at % len(self.items)]
            event = payload_of(user, item, item % _CATEGORIES, "click", noon)
            rows.append(LoggedPayload(event, 0, at, noon + after))
        return rows

    def register_topic(self, first: int = 0) -> int:
        """Register a topic of one partition as the log's next epoch; its number."""
        epoch = self.log.append_epoch(
            kind="topic", name="behaviours.drill", partitions=1, first_offsets={0: first}
        )
        return epoch.number

    def archive(self, epoch: int, rows: Sequence[LoggedPayload]) -> Path:
        """Write a file of the archive, as Flink's sink does."""
        folder = epoch_folder(archive_of(self.workspace.context), epoch)
        path = folder / f"dt={self.day.date()}" / "part=0" / f"part-{rows[0].offset:06d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(map(line_of, rows)))
        return path

    def stream(self, epoch: int, rows: Sequence[LoggedPayload]) -> None:
        """Archive and fold events, as the stream job does, without Flink."""
        self.archive(epoch, rows)
        bundle = load_bundle(self.shelf.find(MODEL))
        with self.store() as store:
            fold = FoldFunction(
                parser=EventParser(self.workspace.config.log),
                folder=MemoryFolder(bundle, GENERATION),
                store=store.memories,
                epoch=epoch,
                starts={0: rows[0].offset},
            )
            reasons = fold(
                [row.payload for row in rows],
                np.array([row.partition for row in rows], np.int64),
                np.array([row.offset for row in rows], np.int64),
                np.array([row.log_time_ms for row in rows], np.int64),
            )
        assert not any(reasons), reasons  # noqa: S101 - the drill's own events

    def bundle(self, *, current: bool = True) -> str:
        """Publish one more version of the model; its name."""
        version = self.shelf.next_version(MODEL)
        untrained_bundle(self.shelf.path(MODEL, version), _ITEMS, _CATEGORIES)
        if current:
            self.shelf.choose(MODEL, version)
        return version


def build_template(path: Path) -> None:
    """Make the workspace that targets are copies of: log, bundles, two snapshots, no store."""
    path.mkdir(parents=True)
    (path / CONFIG_NAME).write_text(yaml.safe_dump(_SETTINGS), encoding="utf-8")
    workspace = Workspace(path)
    workspace.simulate(users=60, items=_ITEMS, days=_DAYS, seed=1, impressions_per_user_day=2.0)
    shelf = BundleShelf(workspace.context.bundles)
    # What ranks with memories, and what ranks with stored histories.
    for model in (MODEL, "sum_pooling"):
        untrained_bundle(shelf.path(model, "0001"), _ITEMS, _CATEGORIES)
        shelf.choose(model, "0001")
    last = max(file.dt for file in EventLog(workspace.context.log).behavior_files())
    first = workspace.build_memories(MODEL, last - timedelta(days=1), generation=GENERATION)
    workspace.build_memories(None, last, start=first.path)


@contextmanager
def target_of(
    template: Path, path: Path, later: Callable[[Callable[[], object]], object]
) -> Iterator[AttackTarget]:
    """A copy of the template with its store running and its memories live.

    Args:
        template: of `build_template`.
        path: new.
        later: is given what stops the store.
    """
    shutil.copytree(template, path, symlinks=True)
    workspace = Workspace(path)
    workspace.store.start()
    try:
        workspace.load()
        workspace.switch(GENERATION)
        items = EventLog(workspace.context.log).items_file()
        assert items is not None  # noqa: S101 - simulated
        yield AttackTarget(
            workspace,
            tuple(workspace.snapshots()[-1].ids().tolist()),
            tuple(sorted(pq.read_table(items)["item_id"].to_pylist())),
        )
    finally:
        workspace.close()
        later(workspace.store.stop)
