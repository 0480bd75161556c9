"""`aggregate`: count, sum, mean, … of a number or an id over sliding windows."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from uic.models.features.definition import Scale
from uic.models.hashing import stable_hash
from uic.models.kernels import tiles
from uic.models.records.positions import BEHAVIORS, EVENT_KINDS, SHOWN, EventBatch
from uic.models.settings import Section
from uic.models.state.counts import Behavior
from uic.models.state.part import (
    MOST_CLOCK,
    Asked,
    Cuts,
    Features,
    PartFeature,
    StatePart,
    States,
    fields_of,
    laid_out,
)
from uic.models.state.times import SHORTEST_UNIT_MS, Duration, written

Function = Literal["count", "sum", "mean", "min", "max", "variance", "first", "last", "distinct"]
_MOST_TILES: Final = 2000
_SEED: Final = 12
_IDS: Final = ("item", "category")
_NO_ID: Final = np.iinfo(np.int64).min


class AggregateSettings(Section):
    """Windows over a column of events."""

    of: str = Field(
        "item",
        description="what is aggregated: a further column of events (a number), or item|category "
        "for count and distinct",
    )
    functions: tuple[Function, ...] = Field(
        ("count",),
        min_length=1,
        description="count|sum|mean|min|max|variance|first|last|distinct",
    )
    windows: tuple[Duration, ...] = Field(
        (86_400_000, 604_800_000), min_length=1, max_length=6, description="1h, 1d, 7d, ..."
    )
    behaviors: tuple[Behavior, ...] = Field(
        BEHAVIORS, min_length=1, description="events that count, by behaviour"
    )
    tile: Duration | None = Field(
        None,
        description="step by which windows slide, and their largest error; none is a sixth of the "
        "shortest window",
    )
    distinct_bits: Literal[64, 128, 256, 512] = Field(
        64, description="of distinct: bits a tile; counts up to some four times as many"
    )

    @property
    def tile_ms(self) -> int:
        """Length of a tile in milliseconds."""
        return self.tile or max(min(self.windows) // 6, 1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        tile = self.tile_ms
        shortest, longest = min(self.windows), max(self.windows)
        if tile < SHORTEST_UNIT_MS:
            msg = f"tile {written(tile)} is shorter than 1s; set tile: 1s, or longer windows"
            raise ValueError(msg)
        if shortest < tile:
            msg = (
                f"window {written(shortest)} is shorter than tile {written(tile)}; "
                f"set tile: {written(max(shortest // 6, 1))}"
            )
            raise ValueError(msg)
        if longest // tile > _MOST_TILES:
            msg = (
                f"window {written(longest)} takes {longest // tile} tiles of {written(tile)}, at "
                f"most {_MOST_TILES} fit; set a longer tile, or make it a part of its own"
            )
            raise ValueError(msg)
        if self.of in _IDS:
            wrong = set(self.functions) - {"count", "distinct"}
            if wrong:
                msg = f"{', '.join(sorted(wrong))} of {self.of} means nothing; it is an id"
                raise ValueError(msg)
        return self


class Aggregate(StatePart):
    """Aggregates of a user's events over windows that slide by tiles."""

    settings_type = AggregateSettings
    settings: AggregateSettings

    @cached_property
    def _tiles(self) -> int:
        return -(-max(self.settings.windows) // self.settings.tile_ms) + 1

    @property
    def _words(self) -> int:
        return self.settings.distinct_bits // 64 if "distinct" in self.settings.functions else 0

    @cached_property
    def _placed(self) -> tuple[dict[str, tuple[int, Any, int]], int]:
        wanted = set(self.settings.functions)
        kept = {
            "sums": (np.float64, bool(wanted & {"sum", "mean", "variance"})),
            "squares": (np.float64, "variance" in wanted),
            "lows": (np.float32, "min" in wanted),
            "highs": (np.float32, "max" in wanted),
            "firsts": (np.float32, "first" in wanted),
            "lasts": (np.float32, "last" in wanted),
        }
        return laid_out(
            [
                ("head", np.uint32, 2),
                ("counts", np.uint32, self._tiles),
                *((name, kind, self._tiles if on else 0) for name, (kind, on) in kept.items()),
                ("bits", np.uint64, self._tiles * self._words),
            ]
        )

    @property
    def bytes(self) -> int:
        """Of a state."""
        return self._placed[1]

    @property
    def reads(self) -> frozenset[str]:
        """The column that is aggregated."""
        return frozenset() if self.settings.of in _IDS else frozenset({self.settings.of})

    @property
    def reads_numbers(self) -> bool:
        """Whether a function reckons with values."""
        return bool(set(self.settings.functions) - {"count", "distinct"})

    @property
    def facts(self) -> Mapping[str, str]:
        """Tiles, and the largest error."""
        return {
            "tiles": f"{self._tiles}",
            "largest error": f"one tile, {written(self.settings.tile_ms)}",
        }

    @property
    def shown_share(self) -> float:
        """All, if they count."""
        return float(SHOWN in self.settings.behaviors)

    @property
    def described(self) -> tuple[PartFeature, ...]:
        """`function_window` for each."""
        own = self.settings
        return tuple(
            PartFeature(
                f"{function}_{written(window)}",
                f"{function} of {own.of} over the last {written(window)}",
                Scale.LOG,
            )
            for window in own.windows
            for function in own.functions
        )

    def _state(self, states: States) -> tuple[NDArray[Any], tuple[NDArray[Any], ...]]:
        fields = fields_of(states, self._placed[0])
        names = ("counts", "sums", "squares", "lows", "highs", "firsts", "lasts", "bits")
        return fields["head"], tuple(fields[name] for name in names)

    def _tile_of(self, times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.clip(times_ms // self.settings.tile_ms, 0, MOST_CLOCK)

    def _events(self, events: EventBatch) -> tuple[NDArray[Any], ...]:
        own = self.settings
        ids = {"item": events.item_ids, "category": events.category_ids}
        column = ids[own.of] if own.of in ids else events.columns[own.of]
        if np.issubdtype(column.dtype, np.integer):
            values = np.where(column == _NO_ID, np.nan, 1.0 if own.of in ids else column)
            keys = stable_hash(column, seed=_SEED)
        else:
            values = column.astype(np.float64)
            keys = stable_hash(values.view(np.int64), seed=_SEED)
        values = np.where(np.isfinite(values), values, np.nan)
        codes = [EVENT_KINDS.index(name) for name in own.behaviors]
        values[~np.isin(events.behaviors, codes)] = np.nan
        return events.user_index, self._tile_of(events.log_times_ms), values, keys

    @cached_property
    def _spans(self) -> NDArray[np.int64]:
        return np.array([-(-w // self.settings.tile_ms) for w in self.settings.windows], np.int64)

    def _chosen(self, read: NDArray[np.float64]) -> Features:
        kinds = [tiles.MEASURES.index(function) for function in self.settings.functions]
        of_window = read.reshape(len(read), len(self.settings.windows), len(tiles.MEASURES))
        with np.errstate(over="ignore"):  # a sum beyond float32 is infinite, and counts as missing
            return of_window[:, :, kinds].reshape(len(read), -1).astype(np.float32)

    def _out(self, rows: int) -> NDArray[np.float64]:
        return np.empty((rows, len(self.settings.windows) * len(tiles.MEASURES)))

    def fold(self, states: States, events: EventBatch) -> None:
        """See `StatePart.fold`."""
        head, ring = self._state(states)
        tiles.fold(head, ring, *self._events(events), self._tiles, self._words)

    def features(self, states: States, asked: Asked) -> Features:
        """See `StatePart.features`."""
        head, ring = self._state(states)
        out, now = self._out(len(asked)), self._tile_of(asked.now_ms)
        tiles.read(head, ring, asked.owners, now, self._spans, self._tiles, self._words, out)
        return self._chosen(out)

    def walk(self, states: States, events: EventBatch, asked: Asked, cuts: Cuts) -> Features:
        """See `StatePart.walk`."""
        head, ring = self._state(states)
        out = self._out(len(asked))
        wanted = (asked.owners, self._tile_of(asked.now_ms), cuts.begins, cuts.ends)
        tiles.walk(
            head, ring, self._events(events), wanted, self._spans, self._tiles, self._words, out
        )
        return self._chosen(out)
