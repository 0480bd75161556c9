"""A ranker that reads memories of another bundle, as happens while a new one is being deployed."""

from torch import Tensor, nn

from uic.models.rankers.mimn import Mimn
from uic.models.samples.batch import Encoder, RankerBatch


class OutOfStep(nn.Module):
    """The readout and the head of one bundle on memories that another one folded (MIMN, table 5).

    Args:
        ranker: reads and scores.
        memory: folds; its own embeddings, its own vocabulary.
        memory_encoder: of that vocabulary.
    """

    def __init__(self, ranker: Mimn, memory: Mimn, memory_encoder: Encoder) -> None:
        super().__init__()
        self.ranker = ranker
        self.memory = memory
        self._encoder = memory_encoder
        self.tasks: dict[str, float] = {}  # of the click alone

    def forward(self, batch: RankerBatch) -> Tensor:
        """Logits of a batch that was encoded for the ranker: (impressions,)."""
        folded_batch = self._encoder.encode(batch.source)
        rows = self.memory.embedding.rows(folded_batch)
        states = self.memory.fold(folded_batch, rows).states  # one for each cut, in batch's order
        candidates = self.ranker.embedding.rows(batch).candidates(batch)
        return self.ranker.readout(states, batch.cuts, candidates)
