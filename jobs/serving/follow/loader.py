"""Loads bundles, item tables and item vectors as scorers; in a thread while requests go on."""

import contextlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from feast import FeatureStore
from numpy.typing import NDArray

from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.item_store import ItemStore
from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.rank.scorer import CandidateScorer
from uic.jobs.serving.read.breaker import CircuitBreaker
from uic.jobs.serving.read.unexpected import log_unexpected
from uic.jobs.serving.read.vector_source import VectorSource
from uic.jobs.serving.score.asks import Ask
from uic.jobs.serving.score.features import ServedFeatures
from uic.jobs.serving.score.item_vectors import ItemVectors
from uic.jobs.serving.score.items import ItemCache, ItemsStamp, ItemTable, items_stamp
from uic.jobs.serving.score.memories import MemoryScorer, MemoryScorers
from uic.jobs.serving.score.prerank import PrerankScorer
from uic.jobs.serving.score.sequences import SequenceScorer, images_ranker
from uic.jobs.serving.score.site import SiteFeatures, SiteStamp
from uic.models.bundles.bundle import HASH_BYTES, Bundle, load_bundle
from uic.models.bundles.documents import BundleError
from uic.models.bundles.shelf import CURRENT_NAME, BundleShelf
from uic.models.published import MANIFEST_NAME
from uic.pipelines.log.event_log import EventLog

LOG: Final = logging.getLogger("uic.serve")
# Of the log's item table, and of the workspace's features.
TableStamp = tuple[ItemsStamp | None, SiteStamp]
_WARM_PASSES: Final = 20
_WARM_ITEMS: Final = 200


@dataclass
class Loader:
    """Makes scorers of bundles, warmed.

    Args:
        shelf: of the workspace.
        log: the event log, for its item table.
        store: Feast.
        items: item versions of the store.
        settings: of the service.
        workspace: whose features are served; None for none.
    """

    shelf: BundleShelf
    log: EventLog
    store: FeatureStore
    items: ItemStore
    settings: ServeSettings
    workspace: Path | None = None
    _hashes: dict[Path, bytes] = field(default_factory=dict)
    _site: SiteFeatures = field(default_factory=SiteFeatures)

    def stamp(self) -> TableStamp:
        """Changes when `table` is to be read again."""
        features = () if self.workspace is None else self._site.stamp(self.workspace)
        return items_stamp(self.log), features

    def table(self) -> tuple[ItemTable, TableStamp]:
        """The newest item table of the log with the features of the workspace, and its stamp."""
        stamp = self.stamp()
        if self.workspace is not None:
            site = SiteFeatures.load(self.workspace, self._site)
            if site.problem not in (None, self._site.problem):
                LOG.error("features are served as they were: %s", site.problem)
            self._site = site
        return ItemTable.load(stamp[0] and stamp[0][0], self._site), stamp

    def pointer_of(self, reference: str) -> Path | None:
        """The CURRENT file to follow; None for `model/version` and for a path."""
        pointer = self.shelf.root / reference / CURRENT_NAME
        return pointer if "/" not in reference and pointer.is_file() else None

    def memories(self, path: Path, table: ItemTable, like: ItemCache | None = None) -> MemoryScorer:
        """A bundle that reads memories, its cache filled with the items of `like`.

        Raises:
            UicError: it is not a bundle, is damaged, or keeps no memory.
        """
        bundle = load_bundle(path)
        if not bundle.has_memory:
            msg = (
                f"{path}: model {bundle.name} keeps no memory, which the feature service needs; "
                f"serve it as `uic serve --bundle {bundle.name} --history-from log`"
            )
            raise BundleError(msg)
        scorer = MemoryScorer(bundle, self.item_cache(bundle, table, like))
        warm(scorer)
        return scorer

    def sequences(
        self,
        path: Path,
        table: ItemTable,
        like: ItemVectors | None = None,
        *,
        vectors_needed: bool = False,
    ) -> SequenceScorer:
        """A ranker that reads histories, with its vectors.

        Args:
            path: of its bundle.
            table: of items.
            like: vectors in use, whose items are read first.
            vectors_needed: refuse it while the store has no item version of it.

        Raises:
            UicError: no bundle, damaged, keeps a memory, or its vectors are needed and not there.
        """
        bundle = load_bundle(path)
        if bundle.has_memory:
            msg = f"{path}: model {bundle.name} keeps a memory; leave out --history-from"
            raise BundleError(msg)
        images = self._images(bundle, table, like, needed=vectors_needed)
        scorer = SequenceScorer(bundle, table, images)
        warm(scorer)
        return scorer

    def prerank(
        self, path: Path, table: ItemTable, *, vectors_needed: bool = False
    ) -> PrerankScorer:
        """A bundle of two towers, with the vectors of all items.

        Args:
            path: of the bundle.
            table: of items.
            vectors_needed: refuse it while the store has no item version of it.

        Raises:
            UicError: no bundle, damaged, of another model, or its vectors are needed and not there.
        """
        bundle = load_bundle(path)
        return PrerankScorer(
            bundle, table, self._images(bundle, table, None, needed=vectors_needed)
        )

    def memories_with(self, scorers: MemoryScorers, table: ItemTable) -> MemoryScorers:
        """The same bundles with another item table; their caches have the items of the old ones."""

        def renewed(scorer: MemoryScorer) -> MemoryScorer:
            items = self.item_cache(scorer.bundle, table, scorer.items)
            return MemoryScorer(scorer.bundle, items)

        others = {hash8: renewed(scorer) for hash8, scorer in scorers.by_hash.items()}
        return MemoryScorers(renewed(scorers.current), others)

    def prerank_with(self, scorer: PrerankScorer, table: ItemTable) -> PrerankScorer:
        """The same bundle with the vectors of another table's items, in the same item version."""
        version = None if scorer.images is None else scorer.images.source.version
        images = self.item_vectors(scorer.bundle, version, table)
        return PrerankScorer(scorer.bundle, table, images)

    def item_cache(
        self, bundle: Bundle, table: ItemTable, like: ItemCache | None = None
    ) -> ItemCache:
        """A cache filled with the items of `like`, otherwise those that the bundle was trained on.

        Args:
            bundle: whose vectors.
            table: of items.
            like: a cache in use.
        """
        features = ServedFeatures(bundle, table.features)
        cache = ItemCache(table, bundle.embed, self.settings.item_cache_items, features)
        known: NDArray[np.int64] = bundle.vocabulary.item.ids
        cache.warm(known if like is None or not len(like.rows) else like.rows.ids())
        return cache

    def item_vectors(
        self,
        bundle: Bundle,
        version: int | None,
        table: ItemTable,
        like: ItemVectors | None = None,
    ) -> ItemVectors | None:
        """Vectors of a bundle in an item version; None if it looks at no images.

        Args:
            bundle: of any model.
            version: item version; None if the store has none of the bundle.
            table: of items, to be read ahead.
            like: vectors in use, whose items are read instead.
        """
        ranker = images_ranker(bundle)
        if ranker is None:
            return None
        breaker = CircuitBreaker(self.settings.breaker_failures, self.settings.breaker_open_seconds)
        timeout_seconds = 2 * self.settings.store_timeout_ms / 1000
        source = VectorSource(self.store, version, bundle.hash8, breaker, timeout_seconds)
        vectors = ItemVectors(ranker, source, self.settings.item_cache_items)
        known = table.item_ids if len(table.item_ids) else bundle.vocabulary.item.ids
        if version is not None:
            # Before the cache is filled, so that nothing is added unnoticed meanwhile.
            with contextlib.suppress(StoreError):
                vectors.since = self.items.changes(version, None).last
            vectors.warm(known if like is None or not len(like.cache) else like.cache.ids())
        return vectors

    def path_of(self, hash8: bytes) -> Path | None:
        """The bundle of this hash, or None; reads manifests that it has not read yet."""
        for model in self.shelf.models():
            for version in self.shelf.versions(model):
                path = self.shelf.root / model / version
                if path not in self._hashes:
                    digest = _hash_of(path)
                    if digest is None:
                        continue  # it may be half copied: read again next time
                    self._hashes[path] = digest
        return next((path for path, known in self._hashes.items() if known == hash8), None)

    def _images(
        self, bundle: Bundle, table: ItemTable, like: ItemVectors | None, *, needed: bool
    ) -> ItemVectors | None:
        """As `item_vectors`, in the version that the store has now."""
        version = None
        with contextlib.suppress(StoreError):
            version = self.items.version_of(bundle.hash8)
        if needed and version is None and images_ranker(bundle) is not None:
            msg = (
                f"{bundle.path}: the store has no ready item version of {bundle.name}/"
                f"{bundle.version}; run `uic images embed` and `uic images load`"
            )
            raise BundleError(msg)
        number = None if version is None else version.number
        return self.item_vectors(bundle, number, table, like)


def _hash_of(path: Path) -> bytes | None:
    """Of a bundle's manifest; None if it cannot be read, which must not hide other bundles."""
    try:
        manifest = json.loads((path / MANIFEST_NAME).read_text(encoding="utf-8"))
        return bytes.fromhex(manifest.get("hash", ""))[:HASH_BYTES]
    except Exception as error:  # a manifest may be damaged in any way
        log_unexpected(f"reading the manifest of {path}", error)
        return None


def warm(scorer: CandidateScorer) -> None:
    """Run some passes, so that the first request does not pay for first times."""
    items = scorer.bundle.vocabulary.item.ids[:_WARM_ITEMS].tolist() or [0]
    for _ in range(_WARM_PASSES):
        scorer.answer_now([Ask(items, explain=True)])
        scorer.answer_now([Ask(items[:7]), Ask(items[:3])])
