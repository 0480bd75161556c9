"""Answers once more: what exact parts said, and what the model makes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.errors import UicError
from uic.models.memory.state import MemoryState
from uic.models.rankers.mimn import Mimn
from uic.models.records.record import Records
from uic.models.state.part import Asked
from uic.pipelines.audit.report import ServedAudit
from uic.pipelines.audit.served_features import logged_features, state_of_answers


@dataclass
class ScoredAgain:
    """Judges answers that were given with records of one generation.

    Args:
        shelf: of the bundles that scored.
        bundle: of the generation.
        categories: of items.
    """

    shelf: BundleShelf
    bundle: Bundle
    categories: Mapping[int, int]
    _loaded: dict[str, Bundle | None] = field(default_factory=dict)

    def add(
        self, audit: ServedAudit, expected: Records, part: pa.Table, judged: NDArray[np.bool_]
    ) -> None:
        """Judge a round; a bundle that is gone judges nothing.

        Parts are judged of every bundle that has those of the generation, probabilities where the
        generation's own bundle scored and keeps a memory: histories are not logged.

        Args:
            audit: takes what is found.
            expected: (answers, record bytes), by the log.
            part: of the service's log.
            judged: (answers,), which.
        """
        names = np.array(part.column("bundle").to_pylist())
        for name in np.unique(names[judged]).tolist():
            scorer = self._scorer(name)
            if scorer is None:
                continue
            chosen = judged & (names == name)
            self._add(audit, scorer, expected[chosen], part.filter(pa.array(chosen)))

    def _scorer(self, name: str) -> Bundle | None:
        """The bundle of an answer, if something of the answer can be computed again."""
        own = f"{self.bundle.name}/{self.bundle.version}"
        if name == own:
            return self.bundle
        if name not in self._loaded:
            try:
                found = load_bundle(self.shelf.find(name))
                same = found.parts_sum and found.parts_sum == self.bundle.parts_sum
                self._loaded[name] = found if same else None
            except UicError:
                self._loaded[name] = None
        return self._loaded[name]

    def _add(
        self, audit: ServedAudit, scorer: Bundle, expected: Records, answers: pa.Table
    ) -> None:
        lists = answers.column("item_ids").to_pylist()
        items = np.array([item for row in lists for item in row], dtype=np.int64)
        sizes = np.array([len(row) for row in lists])
        owners = np.repeat(np.arange(len(lists)), sizes)
        kinds = np.array([self.categories.get(int(item), -1) for item in items], dtype=np.int64)
        moments = answers.column("moment").fill_null(0).to_numpy()
        asked = Asked(owners, np.repeat(moments, sizes), items, kinds)
        told, differing = state_of_answers(scorer, expected, asked, answers, sizes)
        audit.parts += len(lists) if scorer.state is not None else 0
        audit.parts_differing += differing
        model = scorer.model
        if scorer is not self.bundle or not isinstance(model, Mimn):
            return
        served = np.array([p for row in answers.column("probabilities").to_pylist() for p in row])
        known = kinds >= 0  # of an item that the table lacks, the service knew no category
        state = MemoryState.unpack(expected, scorer.memory.layout)
        with torch.no_grad():
            vectors = scorer.embed(items[known], kinds[known])
            features = logged_features(scorer, told, sizes)
            beside = None if features is None else features[torch.from_numpy(known)]
            logits = model.readout(state, torch.from_numpy(owners[known]), vectors, beside)
            again = logits.sigmoid().numpy()
        audit.scored += int(known.sum())
        difference = float(np.abs(again - served[known]).max(initial=0.0))
        audit.largest_difference = max(audit.largest_difference, difference)
