"""What may change under a running worker: looked at now and then, and swapped without a pause.

A `Follower` has one scorer and some probes. A probe looks at one thing; if that has changed, it
returns a new scorer that takes the place of the old one, by one assignment between two rounds of
the engine. So a request sees the old one or the new one, and never parts of both.

| probe | looks at | what changes |
|---|---|---|
| `PointerProbe` | `bundles/<model>/CURRENT` | the bundle, with its vectors |
| `ItemTableProbe` | the newest file of `log/items`; features | categories, features, caches |
| `GenerationsProbe` | generations of the store | bundles of their memories are read, too |
| `ItemVersionProbe` | item versions of the store | a newer one's vectors; vectors of new images |
| `IdsProbe` | kinds of ids of the log | nothing: the service has to be started again |
| `RegistryProbe` | `feast/registry.db` | nothing: it is read again, so that no request has to |

Loading runs in a thread. Workers of one machine swap bundles together: `swap_delay_seconds` after
CURRENT was replaced, by the file's own time.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from feast import FeatureStore

from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.generation import State
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.item_store import Changes
from uic.jobs.serving.follow.loader import Loader, TableStamp
from uic.jobs.serving.read.metrics import ServiceMetrics
from uic.jobs.serving.score.items import ItemTable
from uic.jobs.serving.score.memories import MemoryScorer, MemoryScorers
from uic.jobs.serving.score.prerank import PrerankScorer
from uic.jobs.serving.score.sequences import SequenceScorer
from uic.models.errors import UicError

LOG = logging.getLogger("uic.serve")
# Generations whose memories can be read, now or after a switch.
READABLE: Final = (State.READY, State.LIVE, State.RETIRED)
_REGISTRY_SECONDS: Final = 20.0


# What is followed: scorers that are never changed. The last two may look at images.
S = TypeVar("S", MemoryScorers, SequenceScorer, PrerankScorer)
T = TypeVar("T", SequenceScorer, PrerankScorer)


class ChangeProbe(Protocol[S]):
    """Looks at one thing that may change."""

    name: str

    async def look(self, current: S) -> S | None:
        """What takes the place of `current`; None if nothing has changed."""


@dataclass
class Follower(Generic[S]):
    """Keeps one scorer of a worker fresh.

    Args:
        current: scorer.
        swap: puts a new one into use.
        probes: looked at in this order.
        every_seconds: between two looks.
        metrics: count failed looks, and say when the last good one was; None outside a service.
        stage: `rank` or `prerank`, a label of these metrics.
        looked: when each probe last looked without an error, of `time.monotonic`, by its name.
    """

    current: S
    swap: Callable[[S], None]
    probes: Sequence[ChangeProbe[S]]
    every_seconds: float
    metrics: ServiceMetrics | None = None
    stage: str = "rank"
    looked: dict[str, float] = field(default_factory=dict)
    _errors: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The age of a look that never comes counts from here."""
        for probe in self.probes:
            self._looked(probe.name)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self.every_seconds)
            await self.look()

    async def look(self) -> dict[str, Exception]:
        """One look of every probe.

        An error of a probe changes nothing, leaves the others alone, and is logged when it is met
        first; the probe looks again next time.

        Returns:
            errors by the probe's name.
        """
        errors: dict[str, Exception] = {}
        for probe in self.probes:
            try:
                scorer = await probe.look(self.current)
            except Exception as error:  # one look that fails must not end the following
                errors[probe.name] = error
                if self.metrics is not None:
                    self.metrics.look_failures.labels(self.stage, probe.name).inc()
                self._log(probe.name, error)
                continue
            self._errors.pop(probe.name, None)
            self._looked(probe.name)
            if scorer is not None and scorer is not self.current:
                self.current = scorer
                self.swap(scorer)
        return errors

    @property
    def pending(self) -> str | None:
        """The version of a bundle that is being loaded."""
        pointers = [probe for probe in self.probes if isinstance(probe, PointerProbe)]
        return next((probe.pending for probe in pointers if probe.pending), None)

    def ages(self) -> dict[str, float]:
        """Seconds since each probe last looked without an error, by its name."""
        now = time.monotonic()
        return {name: round(now - then, 1) for name, then in self.looked.items()}

    def _looked(self, name: str) -> None:
        self.looked[name] = time.monotonic()
        if self.metrics is not None:
            self.metrics.last_look.labels(self.stage, name).set_to_current_time()

    def _log(self, name: str, error: Exception) -> None:
        if self._errors.get(name) == repr(error):
            return
        self._errors[name] = repr(error)
        expected = isinstance(error, UicError | OSError)  # the line says it all
        LOG.error(
            "%s: nothing was swapped after a look at the %s: %s",
            self.current.label,
            name,
            error or repr(error),
            exc_info=None if expected else error,
        )


@dataclass
class PointerProbe(Generic[S]):
    """The current version of the model.

    Args:
        pointer: its CURRENT file; None for a bundle that is served for good.
        load: a bundle's scorer, to take the place of another; runs in a thread.
        swap_delay_seconds: see the module.
    """

    pointer: Path | None
    load: Callable[[Path, S], S]
    swap_delay_seconds: float
    name: str = "bundle"
    pending: str | None = None

    async def look(self, current: S) -> S | None:
        """See `ChangeProbe`."""
        if self.pointer is None:
            return None
        try:
            version = self.pointer.read_text(encoding="utf-8").strip()
            replaced_at = self.pointer.stat().st_mtime
        except OSError:
            return None  # it was removed: stay
        if version in ("", current.bundle.version):  # empty: it is being written
            return None
        self.pending = version
        try:
            scorer = await asyncio.to_thread(self.load, self.pointer.parent / version, current)
            await asyncio.sleep(max(0.0, replaced_at + self.swap_delay_seconds - time.time()))
        finally:
            self.pending = None
        LOG.info("bundle %s is served now, %s was", scorer.label, current.label)
        return scorer


@dataclass
class ItemTableProbe(Generic[S]):
    """The item table of the log, and the features of the workspace.

    Args:
        loader: of the table.
        with_table: the same bundle with another table; runs in a thread.
        seen: the files that were loaded last.
    """

    loader: Loader
    with_table: Callable[[S, ItemTable], S]
    seen: TableStamp
    name: str = "item table"

    async def look(self, current: S) -> S | None:
        """See `ChangeProbe`."""
        if self.loader.stamp() == self.seen:
            return None
        table, stamp = await asyncio.to_thread(self.loader.table)
        scorer = await asyncio.to_thread(self.with_table, current, table)
        self.seen = stamp
        LOG.info("item table %s", table.version)
        return scorer


@dataclass
class GenerationsProbe:
    """Generations of the store: whose memories they are.

    Args:
        loader: of their bundles.
        generations: of the store; asked with a timeout of its own.
        met: hex hashes of bundles that were met in records, and that no scorer reads.
    """

    loader: Loader
    generations: Generations
    met: set[str]
    name: str = "generations"
    _failed: set[bytes] = field(default_factory=set)

    async def look(self, current: MemoryScorers) -> MemoryScorers | None:
        """See `ChangeProbe`."""
        scorers = await asyncio.to_thread(self.around, current.current, current)
        return None if set(scorers.by_hash) == set(current.by_hash) else scorers

    def around(self, current: MemoryScorer, loaded: MemoryScorers) -> MemoryScorers:
        """A scorer, and one for each generation's memories that it does not read.

        Args:
            current: of the bundle to serve.
            loaded: scorers in use, not to be loaded again.
        """
        known = {scorer.bundle.hash8: scorer for scorer in [loaded.current, *loaded.others]}
        understood = current.bundle.readout_compatible_with
        try:
            generations = self.generations.all()
        except StoreError:
            # The store is away: keep what there is, the bundle that is replaced included.
            others = {name: one for name, one in known.items() if name not in understood}
            return MemoryScorers(current, others)
        needed = {one.bundle for one in generations if one.state in READABLE}
        needed |= {bytes.fromhex(text) for text in sorted(self.met)}
        others = {}
        for hash8 in sorted(needed - understood):
            scorer = known.get(hash8) or self._load(hash8, current)
            if scorer is not None:
                others[hash8] = scorer
        return MemoryScorers(current, others)

    def _load(self, hash8: bytes, current: MemoryScorer) -> MemoryScorer | None:
        path = None if hash8 in self._failed else self.loader.path_of(hash8)
        if path is None:
            return None  # it may be copied here any time
        try:
            return self.loader.memories(path, current.items.table, current.items)
        except Exception as error:  # a bundle may be damaged in any way
            # Said once: its memories are answered as degraded, and counted.
            self._failed.add(hash8)
            LOG.error("bundle of memories in the store cannot be read: %s", error)  # noqa: TRY400 - the line says all
            return None


@dataclass
class ItemVersionProbe(Generic[T]):
    """Item versions of the store: a newer one of the bundle, and images that were added to it.

    Args:
        loader: of vectors.
    """

    loader: Loader
    name: str = "item version"

    async def look(self, current: T) -> T | None:
        """See `ChangeProbe`."""
        images, items = current.images, self.loader.items
        if images is None:
            return None
        version = await asyncio.to_thread(items.version_of, current.bundle.hash8)
        if version is None:
            return None  # dropped, or the store is empty: what is cached is still right
        number = version.number
        changes: Changes | None = None
        if number == images.source.version and images.since is not None and not current.incomplete:
            changes = await asyncio.to_thread(items.changes, number, images.since)
        if changes is not None and changes.item_ids is not None:
            await images.follow(changes)
            if not len(changes.item_ids):
                return None
            read = await images.read(changes.item_ids)
            return await asyncio.to_thread(current.with_new_images, changes.item_ids, read)
        vectors = await asyncio.to_thread(
            self.loader.item_vectors, current.bundle, number, current.table, images
        )
        if vectors is None:
            return None
        LOG.info("item version %s of %s", number, current.label)
        return await asyncio.to_thread(current.with_images, vectors)


@dataclass
class RegistryProbe(Generic[S]):
    """Feast's registry.

    Args:
        store: Feast.
        due: when it is read again, of `time.monotonic`.
    """

    store: FeatureStore
    due: float = field(default_factory=lambda: time.monotonic() + _REGISTRY_SECONDS)
    name: str = "registry"

    async def look(self, current: S) -> None:  # noqa: ARG002 - see `ChangeProbe`
        """See `ChangeProbe`."""
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + _REGISTRY_SECONDS
            await asyncio.to_thread(self.store.refresh_registry)
