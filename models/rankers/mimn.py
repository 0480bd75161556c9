"""MIMN: a memory per user, folded event by event, read by candidates (MIMN, section 4).

`Mimn.fold` is what the stream computes, on every behaviour event and never in a request;
`Mimn.readout` is what a request computes, from the memory as it is stored and never from a
history. Training runs one after the other through the same two methods.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from uic.models.features.fitted import FittedFeatures
from uic.models.layers.attention import AttentionUnit
from uic.models.layers.embedding import BatchRows
from uic.models.layers.head_inputs import ITEM, ITEM_MEAN, MEAN
from uic.models.memory.event_terms import times_before
from uic.models.memory.fold import GroupFold, fold_groups
from uic.models.memory.network import MemoryNetwork, MemoryState, address, read
from uic.models.memory.settings import MemoryConfig
from uic.models.rankers.lmn.settings import LargeMemorySettings, PluggableSettings, Query, QueryUser
from uic.models.rankers.ranker import Outputs, Ranker, click_logits
from uic.models.samples.batch import RankerBatch


class CandidateMemorySettings(LargeMemorySettings):
    """A large memory that is asked what a request knows: the candidate, and no history."""

    lmn_query: Query = Field(Query.CANDIDATE, description="what asks: candidate")
    lmn_user: QueryUser = Field(QueryUser.NONE, description="user's part of a query: none")

    @model_validator(mode="after")
    def _request_has_no_history(self) -> Self:
        if (self.lmn_query, self.lmn_user) != (Query.CANDIDATE, QueryUser.NONE):
            msg = (
                "a request of mimn reads a record and no history; "
                "set lmn_query=candidate and lmn_user=none"
            )
            raise ValueError(msg)
        return self


class MimnSettings(PluggableSettings, MemoryConfig):
    """Hyper-parameters of the memory network and of the ranker around it.

    By default not as published: slots are addressed by the event, too, they are read with products,
    and the head sees the controller's state, which begins as a mean of the last events
    (docs/adr/023-slots-of-their-own.md). The paper's form has all four off.
    """

    PUBLISHED: ClassVar[Mapping[str, Any]] = {
        "routing": False,
        "readout_products": False,
        "readout_controller": False,
        "controller_half_life_events": 0.0,
    }
    ABSENT: ClassVar[Mapping[str, Any]] = {
        **PluggableSettings.ABSENT,
        **PUBLISHED,
        "form": "published",
    }

    form: Literal["own", "published"] = Field(
        "own",
        description="published = routing, readout_products and readout_controller are off and "
        "controller_half_life_events is 0 where they are not said: the paper's MIMN",
    )
    routing: bool = Field(
        default=True,
        description="slots are also addressed by what the event is: a learned score of each slot "
        "beside the cosine, so that kinds of items have slots of their own; off in the paper",
    )
    readout_products: bool = Field(
        default=True,
        description="whether the head also sees the product of item and content read, and of item "
        "and attended channels, where they are as wide; off in the paper",
    )
    readout_controller: bool = Field(
        default=True,
        description="whether the head also sees the controller's state, what the last events were "
        "in their order, and its product with the item where it is as wide; off in the paper",
    )
    controller_half_life_events: Annotated[float, Field(ge=0, le=1000)] = Field(
        3.0,
        description="the controller begins as a mean in which an event's weight halves in so many, "
        "and learns from there; 0 = random weights, as in the paper; events",
    )
    memory: CandidateMemorySettings | None = Field(
        None, description="memory beside the ranker's own: none|lmn, and then lmn_* keys"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, said: Any) -> Any:
        if isinstance(said, dict) and said.get("form") == "published":
            return {**cls.PUBLISHED, **said}
        return said

    @property
    def event_columns(self) -> tuple[str, ...]:
        """Columns of events that the memory reads, by name."""
        return self.columns_read

    def memory_config(self) -> MemoryConfig:
        """The part that decides what a record holds."""
        return MemoryConfig(**{name: getattr(self, name) for name in MemoryConfig.model_fields})


class Readout(nn.Module):
    """What candidates see in a memory: the features of the head.

    [item, pool, item * pool, content read of M, attended channels of S]; the parts that are
    switched off are left out. The authors' code has the same five, with a sum for the pool and
    the accumulated add vectors for the product; a request can only use what a record holds.

    With `readout_products` the item is multiplied with the content read and with the attended
    channels, too, where they are as wide as it. With `readout_controller` the controller's state
    and its product follow: a record holds it, and the paper's head does not look at it. With
    `routing` the candidate has a score of each slot, as an event has: it looks where events like
    it are written.

    Args:
        config: of the memory.
    """

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.epsilon = config.cosine_epsilon
        self.slots = config.slots
        width = config.event_width
        # The item asks the memory with a key and a strength of its own, as an event does.
        self.query = nn.Linear(width, config.memory_width + 1)
        self.channels = AttentionUnit(width, config.channel_width) if config.induction else None
        self.features = 3 * width + config.memory_width
        if config.induction:
            self.features += config.channel_width
        self.multiplied = config.readout_products
        if self.multiplied:
            read = [config.memory_width] + [config.channel_width] * config.induction
            self.features += width * read.count(width)
        self.controlled = config.readout_controller
        if self.controlled:
            self.features += config.controller + width * (config.controller == width)
        self.route = nn.Linear(width, config.slots, bias=False) if config.routing else None

    def look_where_written(self, memory: MemoryNetwork) -> None:
        """Start with the slots' scores for a candidate that writing has for an event."""
        if self.route is not None and memory.route is not None:
            with torch.no_grad():
                self.route.weight.copy_(memory.route.weight[self.slots :])

    def forward(self, state: MemoryState, owners: Tensor, candidates: Tensor) -> Tensor:
        """Features of each candidate.

        Args:
            state: memories.
            owners: (n,) int64, the memory that each candidate is shown to.
            candidates: (n, event width).

        Returns:
            (n, features).
        """
        slots = state.M.index_select(0, owners)  # (n, slots, memory width)
        routes = None if self.route is None else self.route(candidates)
        weights = self.slot_weights(slots, candidates, routes)
        pool = state.pool.index_select(0, owners)
        looked = [read(weights, slots)]
        if self.channels is not None and state.S is not None:
            looked.append(self._attended(self.channels, state.S, owners, candidates, routes))
        parts = [candidates, pool, candidates * pool, *looked]
        if self.multiplied:
            width = candidates.shape[1]
            parts += [candidates * found for found in looked if found.shape[1] == width]
        if self.controlled:
            h = state.h.index_select(0, owners)
            parts += [h, candidates * h] if h.shape[1] == candidates.shape[1] else [h]
        return torch.cat(parts, dim=1)

    def slot_weights(
        self, slots: Tensor, candidates: Tensor, routes: Tensor | None = None
    ) -> Tensor:
        """How the content read of M divides its attention.

        Args:
            slots: (n, slots, memory width), of each candidate's user.
            candidates: (n, event width).
            routes: (n, slots), of `self.route`; None asks it.

        Returns:
            (n, slots), each row sums to 1.
        """
        if routes is None and self.route is not None:
            routes = self.route(candidates)
        asked = self.query(candidates)
        strength = 1 + functional.softplus(asked[:, -1])
        return address(asked[:, :-1].tanh(), strength, slots, self.epsilon, routes)

    def _attended(
        self,
        unit: AttentionUnit,
        channels: Tensor,
        owners: Tensor,
        candidates: Tensor,
        routes: Tensor | None,
    ) -> Tensor:
        """Sum of the channels, weighted by the candidate: (n, channel width)."""
        count = candidates.shape[0]
        steps = torch.arange(self.slots, device=owners.device)
        keys = (owners.unsqueeze(1) * self.slots + steps).flatten()  # (n * slots,)
        queries = torch.arange(count, device=owners.device).repeat_interleave(self.slots)
        scores = unit(candidates, channels.flatten(0, 1), queries, keys).view(count, self.slots)
        weights = functional.softmax(scores if routes is None else scores + routes, dim=1)
        return (weights.unsqueeze(2) * channels.index_select(0, owners)).sum(1)


class Mimn(Ranker):
    """Memory network, readout and head.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    # Categories and quantiles of columns of events are those of one run's training days.
    PER_ROW = ("memory.event_terms.tables.event_",)

    def __init__(self, settings: MimnSettings, item_rows: int, category_rows: int) -> None:
        config = settings.memory_config()
        readout = Readout(config)
        super().__init__(
            settings,
            item_rows,
            category_rows,
            {"memory": readout.features - 3 * config.event_width},
            (ITEM, MEAN, ITEM_MEAN, "memory"),  # the paper's part of the contract is the common one
            memory=settings.memory,
        )
        self.memory = MemoryNetwork(config)
        self.reading = readout
        self.reading.look_where_written(self.memory)
        # Off only to measure what float16 costs: no record could hold such a state.
        self.rounding = True

    def attach_event_features(self, fitted: FittedFeatures) -> None:
        """See `Ranker.attach_event_features`."""
        if self.memory.event_terms is not None:
            self.memory.event_terms.attach(fitted)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`; the penalty is L_reg."""
        folded = self.fold(batch, rows)
        features = self.reading(folded.states, batch.cuts, rows.candidates(batch))
        outputs = self.finish_with(features, batch, rows)
        return replace(outputs, penalty=outputs.penalty + folded.regularization)

    # ---------------------------------------------------------------- what the stream computes
    def fold(self, batch: RankerBatch, rows: BatchRows) -> GroupFold:
        """Each group's history from a new memory, and the state at each of the batch's cuts."""
        return fold_groups(
            self.memory,
            self.told(batch, rows),
            batch.history_counts,
            batch.cut_groups,
            batch.cut_lengths,
            rounding=self.rounding,
        )

    def told(self, batch: RankerBatch, rows: BatchRows) -> Tensor:
        """What the network gets of each event of a batch: (events, event width)."""
        x = rows.history(batch)
        if self.memory.event_terms is not None:
            events = batch.source
            counts = np.diff(events.history_offsets)
            firsts = events.history_offsets[:-1][counts > 0]
            times = events.history_times_ms
            before = times_before(times, firsts)
            columns = events.history_columns
            x = self.memory.event_terms(x, events.history_behaviors, times, before, columns)
        return x

    # ====== the cut between the two: `MemoryState`, packed into a record in the store ======

    # --------------------------------------------------------------- what the request computes
    def readout(
        self,
        state: MemoryState,
        owners: Tensor,
        candidates: Tensor,
        features: Tensor | None = None,
    ) -> Tensor:
        """Logits of a click on candidates from stored memories: (n,); see `readout_all`."""
        return click_logits(self.readout_all(state, owners, candidates, features))

    def readout_all(
        self,
        state: MemoryState,
        owners: Tensor,
        candidates: Tensor,
        features: Tensor | None = None,
    ) -> Tensor:
        """Logits of candidates from stored memories; the cost does not depend on any history.

        Args:
            state: memories, of a fold or unpacked from records.
            owners: (n,) int64, the memory that each candidate is shown to.
            candidates: (n, event width), `embed` of the candidates.
            features: (n, feature width), embedded; None for a model without.

        Returns:
            As `Outputs.all_logits`.
        """
        parts = [self.reading(state, owners, candidates)]
        if self.large is not None:
            parts.append(self.large.recall(candidates, None).features)
        if features is not None:
            parts.append(features)
        return self.heads(torch.cat(parts, dim=1))
