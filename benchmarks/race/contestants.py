"""The rows of the race: one head over what each state says of a candidate.

A row is a list of parts. A part gives features of (candidate, history before its moment); the
candidate's embedding and the features of all parts go through one batch norm and one network of
two hidden layers, the same for every row. `counters` alone has no embedding and no hidden layer.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from uic.models.memory.fold import fold_groups
from uic.models.memory.network import MemoryNetwork
from uic.models.memory.settings import MemoryConfig
from uic.models.rankers.mimn import Readout

from .batches import RaceBatch

WIDTH = 16  # of an embedding, the product's default
_HIDDEN = (64, 32)
_EMBEDDING_STD = 0.05
_ATTENTION_WIDTH = 36
DIN_EVENTS = 64


class Tables(nn.Module):
    """Embeddings of items and, where the log has them, of categories.

    Args:
        items: rows.
        categories: rows; 0 for none.
    """

    def __init__(self, items: int, categories: int) -> None:
        super().__init__()
        self.item = nn.Embedding(items, WIDTH)
        self.category = nn.Embedding(categories, WIDTH) if categories else None
        self.width = WIDTH * (2 if categories else 1)
        for table in filter(None, (self.item, self.category)):
            nn.init.normal_(table.weight, std=_EMBEDDING_STD)

    def forward(self, items: Tensor, categories: Tensor) -> Tensor:
        """(n,) ids each: (n, width)."""
        if self.category is None:
            return self.item(items)
        return torch.cat([self.item(items), self.category(categories)], dim=-1)

    def means(
        self, items: Tensor, categories: Tensor, counts: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weighted means of embeddings, and the sums of their weights.

        Args:
            items: (ids,), those of one row after the other.
            categories: (ids,).
            counts: (n,), ids of each row; 0 is allowed.
            weight: (ids,) float32.

        Returns:
            (n, width), zero where there is nothing, and (n,).
        """
        starts = torch.cumsum(counts, 0) - counts
        rows = torch.arange(len(counts)).repeat_interleave(counts)
        mass = torch.zeros(len(counts)).index_add_(0, rows, weight)
        found = [
            functional.embedding_bag(
                ids, table.weight, starts, mode="sum", per_sample_weights=weight
            )
            for table, ids in ((self.item, items), (self.category, categories))
            if table is not None
        ]
        return torch.cat(found, dim=1) / mass.clamp(min=1e-3).unsqueeze(1), mass


class Part(nn.Module):
    """Features of a state for each row.

    Args:
        tables: of the embeddings.
    """

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self.width = tables.width
        self.penalty: Tensor | float = 0.0

    #: Consecutive moments of a user that a training batch keeps together.
    block = 1
    #: Whether it reads the events that a batch lists.
    history = True

    def forward(self, batch: RaceBatch, tables: Tables, candidates: Tensor) -> list[Tensor]:
        """Features side by side, (rows, any) each; `candidates` is (rows, width)."""
        raise NotImplementedError


class MeanPool(Part):
    """Mean of all events, its product with the candidate, and the history's length."""

    def weights(self, batch: RaceBatch) -> Tensor:
        """Of each event: (events,)."""
        return torch.ones(len(batch.event_items))

    def forward(self, batch: RaceBatch, tables: Tables, candidates: Tensor) -> list[Tensor]:
        """See `Part.forward`."""
        pool, mass = self.pooled(batch, tables)
        pool = pool.index_select(0, batch.owner)
        return [pool, pool * candidates, mass.log1p().index_select(0, batch.owner).unsqueeze(1)]

    def pooled(self, batch: RaceBatch, tables: Tables) -> tuple[Tensor, Tensor]:
        """Pool and mass of each moment: (moments, width) and (moments,)."""
        ids = batch.event_items, batch.event_categories
        return tables.means(*ids, batch.counts, self.weights(batch))


class LastPool(MeanPool):
    """The same with weights that halve from event to event: mostly the last one."""

    def weights(self, batch: RaceBatch) -> Tensor:
        """See `MeanPool.weights`."""
        return torch.exp2(-batch.ranks)


class TablePool(MeanPool):
    """The same over the entries of the record's table of items, weighted by their counts.

    The table holds fingerprints, so that the record needs no byte more and no weight of a bundle;
    the head looks the embeddings up when it reads.
    """

    history = False

    def pooled(self, batch: RaceBatch, tables: Tables) -> tuple[Tensor, Tensor]:
        """See `MeanPool.pooled`."""
        ids = batch.bag_items, batch.bag_categories
        return tables.means(*ids, batch.bag_counts, batch.bag_weights)


class Memory(Part):
    """MIMN as published: the product's network, fold and read-out.

    A fold of hundreds of events a row would take hours: moments that follow each other share one.
    """

    block = 8
    history = False  # a fold reads the log's events by place

    #: Switches of the memory network.
    options: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        has_category = tables.category is not None
        config = MemoryConfig(
            item_width=WIDTH, category_width=WIDTH if has_category else 0, **self.options
        )
        self.network = MemoryNetwork(config)
        self.reading = Readout(config)
        self.reading.look_where_written(self.network)

    def forward(self, batch: RaceBatch, tables: Tables, candidates: Tensor) -> list[Tensor]:
        """See `Part.forward`."""
        # One fold a user: her moments of this batch are cuts of it.
        users = int(batch.users.max()) + 1
        far = len(batch.log_items)
        begins = torch.full((users,), far).scatter_reduce(0, batch.users, batch.begins, "amin")
        ends = torch.zeros(users, dtype=torch.int64).scatter_reduce(
            0, batch.users, batch.ends, "amax"
        )
        lengths = ends - begins
        offsets = torch.cumsum(lengths, 0) - lengths
        places = (begins - offsets).repeat_interleave(lengths) + torch.arange(int(lengths.sum()))
        events = tables(batch.log_items[places], batch.log_categories[places])
        cuts = batch.ends - begins[batch.users]
        folded = fold_groups(self.network, events, lengths, batch.users, cuts)
        self.penalty = folded.regularization
        read = self.reading(folded.states, batch.owner, candidates)
        return [read[:, self.width :]]  # the candidate itself is there already


class RoutedMemory(Memory):
    """MIMN as it is by default: routed, with products, a controller that begins as a mean."""

    options = MappingProxyType(
        {
            "routing": True,
            "readout_products": True,
            "readout_controller": True,
            "controller_half_life_events": 3.0,
        }
    )


class FlaggedAttention(Part):
    """DIN over the newest events, told which are the candidate's item or category, and how old."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.event = nn.Linear(self.width + 2, _ATTENTION_WIDTH)
        self.candidate = nn.Linear(self.width, _ATTENTION_WIDTH, bias=False)
        self.pair = nn.Linear(self.width + 2, _ATTENTION_WIDTH, bias=False)
        self.score = nn.Sequential(nn.PReLU(), nn.Linear(_ATTENTION_WIDTH, 1))

    def forward(self, batch: RaceBatch, tables: Tables, candidates: Tensor) -> list[Tensor]:
        """See `Part.forward`."""
        places, real = batch.padded(DIN_EVENTS)  # (moments, events)
        if not len(batch.event_items):
            return [candidates * 0, candidates * 0, candidates[:, :1] * 0]
        items, categories = batch.event_items[places], batch.event_categories[places]
        events = tables(items, categories)  # (moments, events, width)
        rank = torch.arange(DIN_EVENTS).expand_as(places)
        when = torch.stack([batch.age_hours[places].log1p() / 5, rank.float().log1p() / 3], 2)
        hidden = self.event(torch.cat([events, when], 2)).index_select(0, batch.owner)
        theirs = events.index_select(0, batch.owner)  # (rows, events, width)
        same = [
            (ids.index_select(0, batch.owner) == of.unsqueeze(1)).float().unsqueeze(2)
            for ids, of in ((items, batch.item), (categories, batch.category))
        ]
        crossed = torch.cat([theirs * candidates.unsqueeze(1), *same], 2)
        hidden = hidden + self.candidate(candidates).unsqueeze(1) + self.pair(crossed)
        weight = functional.softplus(self.score(hidden)[..., 0])
        weight = weight * real.index_select(0, batch.owner)  # (rows, events)
        mass = weight.sum(1, keepdim=True)
        pool = torch.bmm(weight.unsqueeze(1), theirs)[:, 0] / mass.clamp(min=1e-3)
        return [pool, pool * candidates, mass.log1p()]


@dataclass(frozen=True)
class Entry:
    """What makes a row of the race.

    Attributes:
        parts: learned from embeddings.
        dense: names of features that the batches have.
        logistic: nothing but `dense`, and no hidden layer.
    """

    parts: Sequence[Callable[[Tables], Part]] = ()
    dense: Sequence[str] = ()
    logistic: bool = False


class Contestant(nn.Module):
    """One row's network.

    Args:
        entry: what it is made of.
        items: rows of the item table.
        categories: rows of the category table, 0 for none.
        example: a batch, for the widths.
    """

    def __init__(self, entry: Entry, items: int, categories: int, example: RaceBatch) -> None:
        super().__init__()
        self.entry = entry
        self.tables = None if entry.logistic else Tables(items, categories)
        parts = () if self.tables is None else (make(self.tables) for make in entry.parts)
        self.parts = nn.ModuleList(parts)
        with torch.no_grad():
            width = self.features(example).shape[1]
        self.block = max((part.block for part in self.parts), default=1)
        self.history = any(part.history for part in self.parts)
        self.norm = nn.BatchNorm1d(width)
        widths = (width,) if entry.logistic else (width, *_HIDDEN)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.PReLU()]
        self.head = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def features(self, batch: RaceBatch) -> Tensor:
        """What the head sees: (rows, features)."""
        found = [batch.dense[name] for name in self.entry.dense]
        if self.tables is not None:
            candidates = self.tables(batch.item, batch.category)
            found.append(candidates)
            for part in self.parts:
                found += part(batch, self.tables, candidates)
        return torch.cat(found, dim=1)

    def forward(self, batch: RaceBatch) -> Tensor:
        """Logits: (rows,)."""
        return self.head(self.norm(self.features(batch)))[:, 0]

    def penalty(self) -> Tensor | float:
        """What the parts add to the loss of the last batch."""
        return sum(part.penalty for part in self.parts)
