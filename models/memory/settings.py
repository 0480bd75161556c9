"""Settings of the memory network: every size, every switch and every open point of the paper.

Light on purpose (no torch), so that the command line can read them. The open points that
are closed for good (read before write, controller GRU, running weights of the events before this
one, zero start of everything but the memory) are described in `uic.models.memory.network`, where
they are used.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from uic.models.settings import Section


class EventFeature(StrEnum):
    """What an event tells the network beside its item and category."""

    BEHAVIOR = "behavior"  # click, cart, favourite, buy
    GAP = "gap"  # since the user's event before, by event time
    HOUR = "hour"  # of the day, UTC


# A column of events, `event.NAME`.
EventColumnKey = Annotated[str, Field(pattern=r"^event\.[a-z][a-z0-9_]{0,63}$")]


class MemoryConfig(Section):
    """The memory network of MIMN (sections 4.1 to 4.3). Widths and counts are plain numbers."""

    item_width: Annotated[int, Field(ge=1, le=256)] = Field(
        16, description="width of an item embedding; 1 to 256"
    )
    category_width: Annotated[int, Field(ge=0, le=256)] = Field(
        16, description="width of a category embedding, 0 = no categories; 0 to 256"
    )
    event_features: tuple[EventFeature | EventColumnKey, ...] = Field(
        (),
        description="what an event tells beside its item and category: behavior, gap, hour, or "
        "event.NAME of features.yaml; none in the paper",
    )
    slots: Annotated[int, Field(ge=1, le=64)] = Field(
        8, description="rows of the memory M, and channels of S; 1 to 64 (paper: 4, 6, 8)"
    )
    slot_width: Annotated[int, Field(ge=0, le=512)] = Field(
        0,
        description="width of a slot; 0 = as wide as an event (paper's text 16, authors' code 32)",
    )
    controller: Annotated[int, Field(ge=1, le=512)] = Field(
        32, description="width of the controller's GRU state h; 1 to 512"
    )
    controller_half_life_events: Annotated[float, Field(ge=0, le=1000)] = Field(
        0.0,
        description="the controller begins as a mean in which an event's weight halves in so many, "
        "and learns from there; 0 = random weights, as in the paper; events",
    )
    sharpening: bool = Field(
        default=True,
        description="a learned strength of at least 1 on the cosines; off = 1, the paper's eq. 1",
    )
    cosine_epsilon: Annotated[float, Field(gt=0, le=1e-2)] = Field(
        1e-8,
        description="added to the product of squared norms, so that a zero slot has cosine 0",
    )
    routing: bool = Field(
        default=False,
        description="slots are also addressed by what the event is: a learned score of each slot "
        "beside the cosine, so that kinds of items have slots of their own; not in the paper",
    )
    routing_std: Annotated[float, Field(ge=0, le=100)] = Field(
        2.0, description="standard deviation of the initial weights of routing"
    )
    clip: Annotated[float, Field(gt=0, le=100)] = Field(
        20.0, description="bound on the outputs of the controller before their activations"
    )
    initial_memory: Literal["learned", "fixed"] = Field(
        "learned", description="whether training moves the memory that every user starts from"
    )
    initial_memory_std: Annotated[float, Field(gt=0, le=10)] = Field(
        0.5, description="standard deviation of the random initial memory"
    )
    utilization: bool = Field(
        default=True, description="re-balance write weights (MUR); off = no g, no W_g, no loss term"
    )
    utilization_input: Literal["mean", "sum"] = Field(
        "mean",
        description="g as running mean, or as the paper's running sum (float32, for comparison in "
        "training only: P collapses after thousands of events)",
    )
    utilization_horizon_events: Annotated[int, Field(ge=1, le=4000)] = Field(
        500, description="g as mean never moves by less than 1 part in this; events, 1 to 4000"
    )
    utilization_diagonal: Annotated[float, Field(ge=0, le=20)] = Field(
        4.0,
        description="initial logit of P's diagonal: P starts near the identity; 0 = near uniform",
    )
    utilization_loss_weight: Annotated[float, Field(ge=0)] = Field(
        1e-3, description="lambda of L_reg (authors' code: 0.001)"
    )
    utilization_gradient: Literal["all", "regularization"] = Field(
        "all", description="whether W_g learns from all losses or from L_reg alone"
    )
    readout_products: bool = Field(
        default=False,
        description="whether the head also sees the product of item and content read, and of item "
        "and attended channels, where they are as wide; not in the paper",
    )
    readout_controller: bool = Field(
        default=False,
        description="whether the head also sees the controller's state, what the last events were "
        "in their order, and its product with the item where it is as wide; not in the paper",
    )
    induction: bool = Field(default=True, description="channels of interest (MIU); off = no S")
    channel_width: Annotated[int, Field(ge=1, le=512)] = Field(
        32, description="width of a channel, the hidden size of its GRU; 1 to 512"
    )
    top_k: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="channels that one event updates; 1 to slots"
    )
    pool_horizon_events: Annotated[int, Field(ge=1, le=4000)] = Field(
        500,
        description="the pool never moves by less than 1 part in this: float16 rounds a step away "
        "that is under 1/2048 to 1/4096 of the pool, so from an event nearer than 12 to 25 % of "
        "its value it does not move at 500; events, 1 to 4000",
    )

    @property
    def columns_read(self) -> tuple[str, ...]:
        """Columns of events among the event features, by name."""
        named = (str(key) for key in self.event_features)
        return tuple(key.removeprefix("event.") for key in named if key.startswith("event."))

    @property
    def event_width(self) -> int:
        """Width d of an event's embedding x: item and category side by side."""
        return self.item_width + self.category_width

    @property
    def memory_width(self) -> int:
        """Width of a slot of M, and of the read vector r."""
        return self.slot_width or self.event_width

    @property
    def fits_record(self) -> bool:
        """Whether float16 holds the state: not the paper's running sum, which needs float32."""
        return not self.utilization or self.utilization_input == "mean"

    @property
    def gradient_compiles(self) -> bool:
        """Whether the compiled gradient applies: W_g learns as everything else does."""
        return not self.utilization or self.utilization_gradient == "all"

    @model_validator(mode="after")
    def _top_k_fits(self) -> Self:
        if self.top_k > self.slots:
            msg = f"top_k is {self.top_k}, but there are only {self.slots} slots"
            raise ValueError(msg)
        return self
