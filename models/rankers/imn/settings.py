"""What IMN can be told: each open point of its paper, and each variant of its tables, by name.

Light on purpose (no torch), so that the command line can list the keys of `--set`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from uic.models.layers.ranker_settings import WindowedSettings


class Attention(StrEnum):
    """What turns scores of events into weights (IMN, section 4.2; `none` is its ablation)."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    NONE = "none"


class Distance(StrEnum):
    """What attention sees of event x, memory m and target v (IMN, eq. 2, 4.5 and 5.4)."""

    MULTIWAY = "multiway"
    HADAMARD = "hadamard"
    DOT = "dot"


class Cross(StrEnum):
    """Where the target meets the sequence: in the walk, or only in the head (IMN, 5.4)."""

    EARLY = "early"
    DELAYED = "delayed"


class Position(StrEnum):
    """The end from which positions are counted; the paper does not say."""

    NEWEST = "newest"
    OLDEST = "oldest"
    NONE = "none"


class WalkSum(StrEnum):
    """What becomes of a walk's weighted sum before the GRU (docs/adr/022-one-head-contract.md)."""

    NORM = "norm"
    MEAN = "mean"
    SUM = "sum"


class ImnSettings(WindowedSettings):
    """Hyper-parameters of the iterative memory network.

    The variants of the paper: 2P and 3P are `iterations=2|3` with `enhancement_steps=0`, 3P+ is
    the default, all with `walk_sum=sum`. Its ablations: no attention `attention=none`, no walk
    `iterations=0`, no Euclidean distance `distance=hadamard`, delayed cross `cross=delayed
    enhancement_steps=0`.
    """

    ABSENT: ClassVar[Mapping[str, Any]] = {**WindowedSettings.ABSENT, "walk_sum": WalkSum.SUM}

    history_limit: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1000, description="events of history before an impression; count (paper: 1000)"
    )
    iterations: Annotated[int, Field(ge=0, le=16)] = Field(
        3, description="walks over the history; count, 0 = one weighted sum without memory"
    )
    enhancement_steps: Annotated[int, Field(ge=0, le=16)] = Field(
        3, description="steps of memory enhancement; count, 0 = none (paper: 3)"
    )
    attention: Attention = Field(
        Attention.SIGMOID, description="weights of events: sigmoid|softmax|none (none = mean)"
    )
    distance: Distance = Field(
        Distance.MULTIWAY,
        description="what attention sees: multiway (differences and products)|hadamard|dot",
    )
    cross: Cross = Field(
        Cross.EARLY, description="where the target meets the history: early|delayed (in the head)"
    )
    walk_sum: WalkSum = Field(
        WalkSum.NORM,
        description="what becomes of a walk's weighted sum: norm (its mean, on a running scale)|"
        "mean (as softmax weights give already)|sum (the paper)",
    )
    context_std: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01,
        description="standard deviation of initial time and position embeddings; 0 to 1",
    )
    attention_width: Annotated[int, Field(ge=1, le=1024)] = Field(
        8, description="hidden layer of the attention; width (the paper names none)"
    )
    shared_attention: bool = Field(
        default=True, description="whether all walks share one attention (the paper does not say)"
    )
    positions: Position = Field(
        Position.NEWEST, description="end from which positions count: newest|oldest|none"
    )
    time_buckets: Annotated[int, Field(ge=0, le=64)] = Field(
        20, description="buckets of elapsed time, each twice as long; count, 0 = no times"
    )
    time_unit_seconds: Annotated[float, Field(gt=0)] = Field(
        3600.0, description="what is elapsed time 1; seconds (the paper names no unit)"
    )
    ranking_clock_seconds: Annotated[int, Field(ge=1)] = Field(
        60,
        description="ranking times are rounded down to this, so that the impressions of a page "
        "share their encoded history; seconds",
    )
    segment_events: Annotated[int, Field(ge=0)] = Field(
        0, description="length of a piece of the hierarchical variant; count, 0 = one piece"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.cross is Cross.DELAYED and self.enhancement_steps:
            msg = "cross=delayed has no enhancement in the paper; set enhancement_steps=0"
            raise ValueError(msg)
        if self.attention is Attention.NONE and (self.iterations or self.enhancement_steps):
            msg = "attention=none is average pooling; set iterations=0 and enhancement_steps=0"
            raise ValueError(msg)
        if self.segment_events and not self.iterations:
            msg = "segment_events needs a walk; set iterations to at least 1"
            raise ValueError(msg)
        if self.segment_events and self.cross is Cross.DELAYED:
            msg = "segment_events walks with the target; set cross=early"
            raise ValueError(msg)
        return self
