"""IMN: a memory per candidate, walked over the whole history a few times (Anonymous, IMN).

Nothing recurrent runs over events: a walk is one weighted sum of all of them, and a history of
1,000 is walked three times (section 4.3). The interest is the candidate's own, so it is computed
in the request, from the packed sequence; all candidates of a request share one view of it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from uic.models.layers.embedding import BatchRows
from uic.models.layers.head import RunningNorm
from uic.models.layers.head_inputs import ITEM
from uic.models.rankers.imn.attention import MultiWayAttention
from uic.models.rankers.imn.settings import Attention, Cross, ImnSettings, Position, WalkSum
from uic.models.rankers.imn.tiles import Sight
from uic.models.rankers.imn.views import Views, views_of
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class EventEncoder(nn.Module):
    """Item, elapsed time and position, summed (IMN, eq. 1).

    Args:
        settings: which of them.
        width: of each.
    """

    def __init__(self, settings: ImnSettings, width: int) -> None:
        super().__init__()
        self.times = self.positions = None
        if settings.time_buckets:
            self.times = nn.Embedding(settings.time_buckets, width)
        if settings.positions is not Position.NONE:
            self.positions = nn.Embedding(settings.history_limit, width)
        for table in (self.times, self.positions):
            if table is not None:
                nn.init.normal_(table.weight, std=settings.context_std)

    def forward(self, history: Tensor, views: Views) -> Tensor:
        """(events, width) to (views, steps, width)."""
        x = functional.embedding(views.events, history)
        if self.times is not None and views.buckets is not None:
            x = x + self.times(views.buckets)
        if self.positions is not None and views.positions is not None:
            x = x + self.positions(views.positions)
        return x


class IterativeMemory(nn.Module):
    """The walk: `v_u = sum a(x, v, m) x`, `m = GRU(v_u, m)`, N times (IMN, eq. 4 to 6).

    The paper's sum of hundreds of sigmoid weights grows with the history and saturates the GRU; it
    is divided by the number of events, and normalised as the input of a head is (`walk_sum`).

    Args:
        settings: iterations, attention, distance, what becomes of a sum.
        width: of events, memory and target.
    """

    def __init__(self, settings: ImnSettings, width: int) -> None:
        super().__init__()
        self.iterations = settings.iterations
        walks = max(self.iterations, 1)
        self.attentions = nn.ModuleList(
            MultiWayAttention(
                width,
                settings.attention_width,
                settings.distance,
                settings.attention,
                target=settings.cross is Cross.EARLY,
            )
            for _ in range(1 if settings.shared_attention else walks)
        )
        self.update = nn.GRUCell(width, width) if self.iterations else None
        self.norms = None
        if settings.walk_sum is WalkSum.NORM:
            self.norms = nn.ModuleList(RunningNorm(width) for _ in range(walks))
        sigmoid = settings.attention is Attention.SIGMOID
        self.divided = sigmoid and settings.walk_sum is not WalkSum.SUM

    def _attention(self, walk: int) -> MultiWayAttention:
        attention = self.attentions[min(walk, len(self.attentions) - 1)]
        assert isinstance(attention, MultiWayAttention)  # noqa: S101 - for the type checker
        return attention

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        target: Tensor,
        sight: Sight,
        *,
        entropies: list[Tensor] | None = None,
    ) -> Tensor:
        """The memory after the last walk, or the one weighted sum if there are none.

        Args:
            x: (views, steps, width).
            memory: (queries, width), m^0.
            target: (queries, width).
            sight: which events each query looks at.
            entropies: gets the entropy of each walk's weights, (queries,) each.

        Returns:
            (queries, width).
        """
        for walk in range(max(self.iterations, 1)):
            attention = self._attention(walk)
            if entropies is not None:
                entropies.append(attention.entropies(x, memory, target, sight))
            interest: Tensor = attention(x, memory, target, sight)
            if self.divided:
                interest = interest / (sight.ends - sight.firsts).clamp(min=1).unsqueeze(1)
            if self.norms is not None:
                interest = self.norms[walk](interest)
            if self.update is None:
                return interest
            memory = self.update(interest, memory)
        return memory


class MemoryEnhancement(nn.Module):
    """`u = GRU([W_u u, v], u)`, a few times (IMN, eq. 7).

    Args:
        width: of memory and target.
        steps: their number.
    """

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.map = nn.Linear(width, width, bias=False)
        self.update = nn.GRUCell(2 * width, width)

    def forward(self, memory: Tensor, target: Tensor) -> Tensor:
        """(n, width), (n, width) to (n, width)."""
        for _ in range(self.steps):
            memory = self.update(torch.cat([self.map(memory), target], dim=1), memory)
        return memory


class Imn(Ranker):
    """Encoder, walks, enhancement and head; the paper's head input is [item, interest].

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: ImnSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        own, limit = {"interest": width}, settings.history_limit
        super().__init__(settings, item_rows, category_rows, own, (ITEM, *own), limit=limit)
        self.settings = settings
        self.encoder = EventEncoder(settings, width)
        self.walk = self.over_pieces = self.enhancement = None
        if settings.attention is not Attention.NONE:
            self.walk = IterativeMemory(settings, width)
            if settings.segment_events:
                self.over_pieces = IterativeMemory(settings, width)
        if settings.enhancement_steps:
            self.enhancement = MemoryEnhancement(width, settings.enhancement_steps)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`.

        Raises:
            MissingTimesError: time buckets are asked for, and a history has no times.
        """
        interest = self._interest(batch, rows, rows.candidates(batch))
        return self.finish({"interest": interest}, batch, rows)

    @torch.no_grad()
    def extra_metrics(self, batch: RankerBatch) -> dict[str, list[float]]:
        """Mean attention entropy of each walk, in nats (IMN, fig. 5b)."""
        return {"attention_entropies": self.attention_entropies(batch).tolist()}

    def attention_entropies(self, batch: RankerBatch) -> Tensor:
        """Mean entropy of attention at each walk, in nats (IMN, fig. 5b): (walks,).

        Impressions without a history are left out of the mean.
        """
        rows = self.embedding.rows(batch)
        walk_entropies: list[Tensor] = []
        self._interest(batch, rows, rows.candidates(batch), walk_entropies)
        seen = batch.lengths > 0
        return (
            torch.stack([entropy[seen].mean() for entropy in walk_entropies])
            if walk_entropies
            else seen.new([])
        )

    def _interest(
        self,
        batch: RankerBatch,
        rows: BatchRows,
        candidates: Tensor,
        entropies: list[Tensor] | None = None,
    ) -> Tensor:
        """What each candidate finds in its history: (impressions, width)."""
        views = views_of(batch, self.settings)
        x = self.encoder(rows.history(batch), views)  # (views, steps, width)
        if self.walk is None:
            distinct, index = _distinct_ends(views)
            return _means(x, distinct)[index]
        if self.settings.cross is Cross.DELAYED:
            return self._delayed(self.walk, x, views, entropies)
        memory = self._walked(self.walk, x, candidates, views, entropies)
        if self.enhancement is not None:
            memory = self.enhancement(memory, candidates)
        return memory

    def _walked(
        self,
        walk: IterativeMemory,
        x: Tensor,
        targets: Tensor,
        views: Views,
        entropies: list[Tensor] | None,
    ) -> Tensor:
        if self.over_pieces is None:
            sight = _first_events(views.of, views.ends)
            walked: Tensor = walk(x, targets, targets, sight, entropies=entropies)
            return walked
        # Each piece is walked by a query of its own; the memories are a short sequence each.
        size = self.settings.segment_events
        count = max(-(-x.shape[1] // size), 1)
        firsts = torch.arange(count, device=x.device) * size
        ends = torch.minimum(firsts + size, views.ends.unsqueeze(1)).flatten()
        firsts = firsts.repeat(targets.shape[0])
        sight = Sight(views.of.repeat_interleave(count), firsts, ends)
        repeated = targets.repeat_interleave(count, dim=0)
        pieces = walk(x, repeated, repeated, sight).view(targets.shape[0], count, -1)
        each = torch.arange(targets.shape[0], device=x.device)
        sight = _first_events(each, (views.ends + size - 1) // size)
        over: Tensor = self.over_pieces(pieces, targets, targets, sight, entropies=entropies)
        return over

    def _delayed(
        self, walk: IterativeMemory, x: Tensor, views: Views, entropies: list[Tensor] | None
    ) -> Tensor:
        """Delayed cross: walk from the mean event without the target; only the head combines them.

        The paper does not say what m^0 becomes; the mean is what a walk without target or
        attention would find. Impressions with one view and end share one walk.
        """
        distinct, index = _distinct_ends(views)
        start = _means(x, distinct)
        sight = _first_events(distinct[0], distinct[1])
        walk_entropies: list[Tensor] = []
        memory = walk(
            x, start, start, sight, entropies=None if entropies is None else walk_entropies
        )
        if entropies is not None:
            entropies += [entropy[index] for entropy in walk_entropies]
        walked: Tensor = memory[index]
        return walked


def _first_events(view_of: Tensor, ends: Tensor) -> Sight:
    """Queries that look at their view's first `ends` steps."""
    return Sight(view_of, torch.zeros_like(ends), ends)


def _distinct_ends(views: Views) -> tuple[Tensor, Tensor]:
    """Distinct (view, end): (2, distinct), and the one of each impression."""
    distinct, index = torch.unique(torch.stack([views.of, views.ends]), dim=1, return_inverse=True)
    return distinct, index


def _means(x: Tensor, sights: Tensor) -> Tensor:
    """Mean of the first steps of views, 0 of none: (2, n) views and ends to (n, width)."""
    seen = torch.arange(x.shape[1], device=x.device) < sights[1].unsqueeze(1)
    weights = seen.to(x.dtype) / sights[1].clamp(min=1).unsqueeze(1)
    return torch.bmm(weights.unsqueeze(1), x[sights[0]]).squeeze(1)
