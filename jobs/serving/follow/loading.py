"""Bundles and items for a worker: found, loaded, warmed. Runs in a thread while requests go on."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.feature_repo.store.generation import Generation, State
from uic.jobs.serving.rank.engine import Scorer, measure_pass_rows
from uic.jobs.serving.score.items import ItemCache, ItemTable
from uic.jobs.serving.score.readouts import Ask, Readout, Readouts
from uic.models.bundles.bundle import HASH_BYTES, Bundle, BundleError, load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.errors import UicError
from uic.models.published import MANIFEST_NAME

LOG = logging.getLogger("uic.serve")
# Generations whose memories can be read, now or after a switch.
READABLE: Final = (State.READY, State.LIVE, State.RETIRED)
PASS_SIZES: Final = (64, 128, 256, 512, 1024)
_WARM_PASSES: Final = 20
_WARM_ITEMS: Final = 200


@dataclass
class Library:
    """The bundles of a workspace, by hash.

    Args:
        shelf: of the workspace.
        cache_items: capacity of each bundle's item cache.
        table: of items; replaced when the log has a newer one.
    """

    shelf: BundleShelf
    cache_items: int
    table: ItemTable
    _hashes: dict[Path, bytes] = field(default_factory=dict)
    _failed: set[bytes] = field(default_factory=set)

    def load(self, path: Path, like: ItemCache | None = None) -> Readout:
        """Load a bundle and warm it, its cache with the items of `like`.

        Raises:
            UicError: it is not a bundle, is damaged, or keeps no memory.
        """
        bundle = load_bundle(path)
        if not bundle.has_memory:
            msg = (
                f"{path}: model {bundle.name} keeps no memory, which the feature service needs; "
                f"serve it as `uic serve --model {bundle.name} --history-from log`"
            )
            raise BundleError(msg)
        readout = Readout(bundle, self.cache_of(bundle, like))
        warm(readout)
        return readout

    def cache_of(self, bundle: Bundle, like: ItemCache | None = None) -> ItemCache:
        """A filled item cache for a bundle: with the items of `like`, else those it was trained on.

        Args:
            bundle: whose vectors.
            like: a cache in use.
        """
        cache = ItemCache(self.table, bundle.embed, self.cache_items)
        known: NDArray[np.int64] = bundle.vocabulary.item.ids
        wanted = known[: self.cache_items] if like is None or not len(like) else like.ids()
        cache.warm(wanted.tolist())
        return cache

    def path_of(self, hash8: bytes) -> Path | None:
        """The bundle of this hash, or None; reads manifests that it has not read yet."""
        for model in self.shelf.models():
            for version in self.shelf.versions(model):
                path = self.shelf.root / model / version
                if path not in self._hashes:
                    manifest = json.loads((path / MANIFEST_NAME).read_text(encoding="utf-8"))
                    self._hashes[path] = bytes.fromhex(manifest.get("hash", ""))[:HASH_BYTES]
        return next((path for path, found in self._hashes.items() if found == hash8), None)

    def readouts(
        self,
        current: Readout,
        generations: Sequence[Generation],
        loaded: Readouts | None,
        also: Sequence[bytes] = (),
    ) -> Readouts:
        """`current`, and a readout for each generation's memories that it does not understand.

        Args:
            current: of the bundle to serve.
            generations: of the store.
            loaded: readouts in use, not to be loaded again.
            also: further hashes that were met in records.
        """
        needed = {found.bundle for found in generations if found.state in READABLE} | set(also)
        others: dict[bytes, Readout] = {}
        known = {} if loaded is None else {one.bundle.hash8: one for one in loaded.all()}
        for hash8 in sorted(needed - current.bundle.readout_compatible_with):
            if hash8 in known:
                others[hash8] = known[hash8]
            elif hash8 not in self._failed:
                readout = self._load_other(hash8, current)
                if readout is not None:
                    others[hash8] = readout
        return Readouts(current, others)

    def _load_other(self, hash8: bytes, current: Readout) -> Readout | None:
        path = self.path_of(hash8)
        if path is None:
            return None  # it may be copied here any time
        try:
            return self.load(path, current.items)
        except UicError as error:
            # Said once: its memories are answered as degraded, and counted.
            self._failed.add(hash8)
            LOG.error("bundle of memories in the store cannot be read: %s", error)  # noqa: TRY400
            return None


def warm(scorer: Scorer) -> None:
    """Run some passes, so that the first request does not pay for first times."""
    items = scorer.items.ids()[:_WARM_ITEMS].tolist() or [0]
    for _ in range(_WARM_PASSES):
        scorer.score([Ask(items, explain=True)])
        scorer.score([Ask(items[:7]), Ask(items[:3])])


def pass_rows_of(scorer: Scorer) -> int:
    """How many candidates to score at once on this machine."""
    return measure_pass_rows(scorer, scorer.items.ids()[:1000].tolist() or [0], PASS_SIZES)
