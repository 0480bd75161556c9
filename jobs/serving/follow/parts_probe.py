"""Whose records hold the exact parts of a ranker that reads histories."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.generation import Generation
from uic.feature_repo.store.generations import Generations
from uic.jobs.serving.follow.follower import READABLE
from uic.jobs.serving.follow.loader import Loader
from uic.jobs.serving.score.sequences import SequenceScorer
from uic.models.bundles.bundle import Bundle, load_bundle

LOG: Final = logging.getLogger("uic.serve")


@dataclass
class PartsProbe:
    """Generations of the store: which have the parts of the bundle that is served.

    Args:
        loader: finds their bundles.
        generations: of the store; asked with a timeout of its own.
    """

    loader: Loader
    generations: Generations
    name: str = "generations"
    _read: dict[bytes, bytes] = field(default_factory=dict)

    async def look(self, current: SequenceScorer) -> SequenceScorer | None:
        """See `ChangeProbe`."""
        scorer = await asyncio.to_thread(self.around, current)
        return None if scorer.records == current.records else scorer

    def around(self, scorer: SequenceScorer) -> SequenceScorer:
        """A scorer, with the records that it reads by what the store has now."""
        if not scorer.reads_parts:
            return scorer
        try:
            generations = self.generations.all()
        except StoreError:
            return scorer  # the store is away: what was known stays
        return scorer.with_records(self._known(scorer.bundle, generations))

    def _known(self, bundle: Bundle, generations: list[Generation]) -> Mapping[bytes, int]:
        wanted = bundle.parts_sum
        return {
            one.bundle: one.record_bytes
            for one in generations
            if one.state in READABLE
            and (one.bundle == bundle.hash8 or self._sum(one.bundle) == wanted)
        }

    def _sum(self, hash8: bytes) -> bytes:
        """The sum of a bundle's parts; empty without parts, or where there is no such bundle."""
        if hash8 not in self._read:
            path = self.loader.path_of(hash8)
            if path is None:
                return b""  # it may be copied here any time
            try:
                self._read[hash8] = load_bundle(path).parts_sum
            except Exception as error:  # a bundle may be damaged in any way
                self._read[hash8] = b""  # said once: users are answered as degraded, and counted
                LOG.error("bundle of records in the store cannot be read: %s", error)  # noqa: TRY400 - the line says all
        return self._read[hash8]
