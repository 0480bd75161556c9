"""What may change under a running worker, looked at now and then, and swapped without a pause.

| what | where | what happens |
|---|---|---|
| the current bundle | `bundles/<model>/CURRENT` | loaded beside the old, warmed, swapped |
| items | the newest file of `log/items` | new caches, filled with the old ones' items, swapped |
| generations | the store | bundles of their memories are loaded |
| Feast's registry | `feast/registry.db` | read again, so that no request has to |

Loading runs in a thread; the swap is one assignment between two rounds of the engine. Workers of
one machine swap together: `swap_delay_seconds` after CURRENT was replaced, by the file's own time.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from feast import FeatureStore

from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.generations import Generations
from uic.jobs.serving.follow.loading import Library
from uic.jobs.serving.rank.engine import RankingEngine
from uic.jobs.serving.read.metrics import Metrics
from uic.jobs.serving.score.items import ItemTable, items_stamp
from uic.jobs.serving.score.readouts import Readout, Readouts
from uic.models.bundles.shelf import CURRENT_NAME
from uic.models.errors import UicError
from uic.pipelines.log.event_log import EventLog

LOG = logging.getLogger("uic.serve")
_REGISTRY_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Followed:
    """Which bundle to serve.

    Args:
        path: of the bundle to start with.
        pointer: the CURRENT file to follow; None serves `path` for good.
    """

    path: Path
    pointer: Path | None

    @classmethod
    def of(cls, library: Library, reference: str) -> "Followed":
        """`model` follows its CURRENT; `model/version` or a path does not.

        Raises:
            BundleError: nothing of that name.
        """
        path = library.shelf.find(reference)
        pointer = library.shelf.root / reference / CURRENT_NAME
        return cls(path, pointer if "/" not in reference and pointer.is_file() else None)

    def stamp(self) -> tuple[int, str] | None:
        """When the pointer was replaced (nanoseconds) and what it says; None without one."""
        if self.pointer is None:
            return None
        try:
            version = self.pointer.read_text(encoding="utf-8").strip()
            replaced_ns = self.pointer.stat().st_mtime_ns
        except OSError:
            return None  # it was removed: stay
        return (replaced_ns, version) if version else None  # empty: somebody is writing to it


@dataclass
class Watcher:
    """Keeps one worker up to date.

    Args:
        engine: whose readouts are swapped.
        library: bundles and items.
        followed: bundle.
        generations: of the store; asked with a timeout of its own.
        store: Feast.
        log: the event log, for its item table.
        metrics: told the current bundle.
        swap_delay_seconds: see the module.
        every_seconds: between two looks.
    """

    engine: RankingEngine
    library: Library
    followed: Followed
    generations: Generations
    store: FeatureStore
    log: EventLog
    metrics: Metrics
    swap_delay_seconds: float
    every_seconds: float
    pending: str | None = None
    _stamp: tuple[int, str] | None = None
    _items: tuple[Path, int, int] | None = None
    _registry_due: float = 0.0

    def begin(self) -> None:
        """Remember what was loaded at start."""
        self._stamp = self.followed.stamp()
        self._items = items_stamp(self.log)
        self._registry_due = time.monotonic() + _REGISTRY_SECONDS

    async def run(self) -> None:
        """Look until cancelled; an error is logged and the old state stays."""
        while True:
            await asyncio.sleep(self.every_seconds)
            try:
                await self.look()
            except UicError as error:
                LOG.error("nothing was swapped: %s", error)  # noqa: TRY400 - the line says it all
            except OSError:
                LOG.exception("nothing was swapped")

    async def look(self) -> None:
        """One look at everything."""
        if time.monotonic() >= self._registry_due:
            self._registry_due = time.monotonic() + _REGISTRY_SECONDS
            await asyncio.to_thread(self.store.refresh_registry)
        await self._follow_items()
        await self._follow_pointer()
        await self._follow_generations()

    async def _follow_pointer(self) -> None:
        stamp = self.followed.stamp()
        if stamp is None or stamp == self._stamp or self.followed.pointer is None:
            return
        self._stamp = stamp
        replaced_ns, version = stamp
        current = self._current()
        if current.bundle.version == version:
            return
        path = self.followed.pointer.parent / version
        self.pending = version
        try:
            readout = await asyncio.to_thread(self.library.load, path, current.items)
            readouts = await asyncio.to_thread(self._readouts, readout)
            due = replaced_ns / 1e9 + self.swap_delay_seconds
            await asyncio.sleep(max(0.0, due - time.time()))
            self._swap(readouts)
        finally:
            self.pending = None
        LOG.info("bundle %s is served now, %s was", readout.label, current.label)

    async def _follow_items(self) -> None:
        stamp = items_stamp(self.log)
        if stamp == self._items:
            return
        self._items = stamp
        self.library.table = await asyncio.to_thread(ItemTable.load, stamp and stamp[0])
        self._swap(await asyncio.to_thread(self._with_new_items, self._loaded()))
        LOG.info("item table %s", self.library.table.version)

    def _with_new_items(self, loaded: Readouts) -> Readouts:
        def renewed(readout: Readout) -> Readout:
            return readout.with_items(self.library.cache_of(readout.bundle, readout.items))

        others = {hash8: renewed(readout) for hash8, readout in loaded.by_hash.items()}
        return Readouts(renewed(loaded.current), others)

    async def _follow_generations(self) -> None:
        loaded = self._loaded()
        readouts = await asyncio.to_thread(self._readouts, loaded.current)
        if set(readouts.by_hash) != set(loaded.by_hash):
            self._swap(readouts)

    def _readouts(self, current: Readout) -> Readouts:
        loaded = self._loaded()
        met = [bytes.fromhex(text) for text in sorted(self.engine.not_understood)]
        try:
            generations = self.generations.all()
        except StoreError:
            # The store is away: keep what there is, the bundle that is replaced included.
            kept = {readout.bundle.hash8: readout for readout in loaded.all()}
            understood = current.bundle.readout_compatible_with
            return Readouts(
                current, {name: one for name, one in kept.items() if name not in understood}
            )
        return self.library.readouts(current, generations, loaded, met)

    def _swap(self, readouts: Readouts) -> None:
        self.engine.readouts = readouts
        self.metrics.now_serving("bundles", readouts.current.label)

    def _current(self) -> Readout:
        return self._loaded().current

    def _loaded(self) -> Readouts:
        readouts: Any = self.engine.readouts
        assert isinstance(readouts, Readouts)  # noqa: S101 - a worker with memories has these
        return readouts
