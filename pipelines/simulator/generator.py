"""The simulated log as Arrow tables and as JSON payloads, in bounded memory.

`Simulation.chunks(day)` gives the blocks of one day; `payload_batches` gives behaviours as the
events of the wire, in log time order, for a topic or a stream test. One day is the most that is
ever held.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.pipelines.log.schemas import BEHAVIOR_EVENTS, BEHAVIORS, IMPRESSIONS, TIMESTAMP
from uic.pipelines.simulator.days import DayChunk, day_chunk, signal_day_chunk
from uic.pipelines.simulator.features import SimulatedFeatures
from uic.pipelines.simulator.plan import SimulationPlan
from uic.pipelines.simulator.signals.recollection import Recollection
from uic.pipelines.simulator.visits import Bargains
from uic.pipelines.simulator.world import Catalogue, UserBlock, block_count

# A behaviour without its position, which the writer gives.
SIMULATED_BEHAVIORS: Final = pa.schema(
    [
        BEHAVIOR_EVENTS.field(name)
        for name in ("user_id", "item_id", "category_id", "behavior", "event_time", "log_time")
    ]
)
# `click_probability` is what `clicked` was drawn with: no model may see it, any may be held to it.
SIMULATED_IMPRESSIONS: Final = IMPRESSIONS.append(
    pa.field("click_probability", pa.float32(), nullable=False)
)

# Users of so many blocks stay in memory (about 80 MB); the others are drawn again each day.
_BLOCKS_KEPT: Final = 128


@dataclass(frozen=True)
class PayloadBatch:
    """Behaviours as producers send them, by log time.

    Args:
        payloads: JSON events, each bytes.
        user_ids: (payloads,), int64: the key of each message.
        log_times_ms: (payloads,), int64.
    """

    payloads: list[bytes]
    user_ids: NDArray[np.int64]
    log_times_ms: NDArray[np.int64]


class Simulation:
    """A plan with its items drawn; the source of every simulated row.

    Any chunk can be asked for alone and in any order, and is the same each time.
    """

    def __init__(self, plan: SimulationPlan) -> None:
        self.plan = plan
        self.catalogue = Catalogue.of(plan)
        self.blocks = block_count(plan)
        self.features = None if plan.feature_gain is None else SimulatedFeatures.of(plan)
        self.recollection = Recollection(plan, self.catalogue) if plan.signals else None
        self._kept: dict[int, UserBlock] = {}

    def chunk(self, day: int, block: int) -> DayChunk:
        """The rows of one block of users on one day, as arrays."""
        return self._chunk(day, block, self._bargains(day))

    def chunks(self, day: int) -> Iterator[DayChunk]:
        """The rows of one day, block after block; within a block by log time."""
        bargains = self._bargains(day)
        for block in range(self.blocks):
            yield self._chunk(day, block, bargains)

    def _chunk(self, day: int, block: int, bargains: Bargains | None) -> DayChunk:
        users = self._users(block)
        if self.recollection is None:
            return day_chunk(
                self.plan, self.catalogue, users, day, bargains, features=self.features
            )
        own, mind = self.recollection.on(users, day)
        return signal_day_chunk(own, mind, bargains, features=self.features)

    def payload_batches(
        self, batch_events: int = 10_000, first_day: int = 0, last_day: int | None = None
    ) -> Iterator[PayloadBatch]:
        """Behaviours of the days (indices, both included) as JSON, in log time order."""
        last = self.plan.days - 1 if last_day is None else last_day
        for day in range(first_day, last + 1):
            table = pa.concat_tables(behaviors_table(chunk) for chunk in self.chunks(day))
            times = table["log_time"].cast(pa.int64()).to_numpy()
            table = table.take(np.argsort(times, kind="stable")).combine_chunks()
            for at in range(0, table.num_rows, batch_events):
                yield _payloads(table.slice(at, batch_events))

    def _users(self, block: int) -> UserBlock:
        users = self._kept.get(block)
        if users is None:
            users = UserBlock.of(self.plan, self.catalogue, block)
            if len(self._kept) < _BLOCKS_KEPT:
                self._kept[block] = users
        return users

    def _bargains(self, day: int) -> Bargains | None:
        return Bargains.on(self.plan, self.catalogue, day)


def behaviors_table(chunk: DayChunk) -> pa.Table:
    """The behaviours of a chunk, `SIMULATED_BEHAVIORS`."""
    behavior = pa.DictionaryArray.from_arrays(pa.array(chunk.behaviors), pa.array(BEHAVIORS))
    return pa.table(
        [
            pa.array(chunk.user_ids),
            pa.array(chunk.item_ids),
            pa.array(chunk.category_ids),
            behavior,
            pa.array(chunk.event_times_ms).cast(TIMESTAMP),
            pa.array(chunk.log_times_ms).cast(TIMESTAMP),
        ],
        schema=SIMULATED_BEHAVIORS,
    )


def impressions_table(chunk: DayChunk) -> pa.Table:
    """The impressions of a chunk, `SIMULATED_IMPRESSIONS`, and `position` with features."""
    table = pa.table(
        [
            pa.array(chunk.impression_user_ids),
            pa.array(chunk.impression_item_ids),
            pa.array(chunk.impression_category_ids),
            pa.array(chunk.impression_times_ms).cast(TIMESTAMP),
            pa.array(chunk.clicked),
            pa.array(chunk.click_probability),
        ],
        schema=SIMULATED_IMPRESSIONS,
    )
    if chunk.positions is None:
        return table
    return table.append_column("position", pa.array(chunk.positions.astype(np.int16)))


def _payloads(table: pa.Table) -> PayloadBatch:
    """JSON by joining columns of text: numbers and four known words need no escaping."""

    def text(name: str) -> pa.ChunkedArray:
        return table[name].cast(pa.int64()).cast(pa.string())

    joined = pc.binary_join_element_wise(
        '{"user_id":', text("user_id"),
        ',"item_id":', text("item_id"),
        ',"category_id":', text("category_id"),
        ',"behavior":"', table["behavior"].cast(pa.string()),
        '","event_time":', text("event_time"),
        "}",
        "",
    )  # fmt: skip
    return PayloadBatch(
        payloads=joined.cast(pa.binary()).to_pylist(),
        user_ids=table["user_id"].to_numpy(),
        log_times_ms=table["log_time"].cast(pa.int64()).to_numpy(),
    )
