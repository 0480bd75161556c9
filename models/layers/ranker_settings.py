"""What every ranker can be told: widths, activation, scale of the input.

Light on purpose (no torch), so that the command line can list the keys of `--set`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from uic.models.settings import Section


class Activation(StrEnum):
    """Activation of the head (the paper names none; the authors' code has PReLU)."""

    PRELU = "prelu"
    DICE = "dice"


class InputNorm(StrEnum):
    """Normalisation of the head's input (the authors' code: batch normalisation)."""

    RUNNING = "running"
    LAYER = "layer"
    NONE = "none"


class HeadInputs(StrEnum):
    """What the head is fed beside what a model alone knows (docs/adr/022-one-head-contract.md)."""

    COMMON = "common"
    PAPER = "paper"


class RankerSettings(Section):
    """Hyper-parameters that all rankers share."""

    # What a document from before some settings means by their absence: its bundle keeps its scores.
    ABSENT: ClassVar[Mapping[str, Any]] = {"head_inputs": HeadInputs.PAPER}

    item_width: Annotated[int, Field(ge=1, le=256)] = Field(
        16, description="width of an item embedding; 1 to 256"
    )
    category_width: Annotated[int, Field(ge=0, le=256)] = Field(
        16, description="width of a category embedding; 0 to 256"
    )
    embedding_std: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="standard deviation of initial embeddings; up to 1"
    )
    head_widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (200, 80), description="hidden layers of the head; widths (paper: 200, 80)"
    )
    activation: Activation = Field(
        Activation.PRELU, description="activation of the head: prelu|dice"
    )
    input_norm: InputNorm = Field(
        InputNorm.RUNNING, description="what scales the head's input: running|layer|none"
    )
    head_inputs: HeadInputs = Field(
        HeadInputs.COMMON,
        description="what the head is fed beside the model's own: common (item, mean of its "
        "history, item x mean), or what the paper has instead: common|paper",
    )

    @property
    def event_columns(self) -> tuple[str, ...]:
        """Columns of events that the model's fold reads, by name."""
        return ()

    @classmethod
    def stored(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a stored document, also of one that is older than some of them."""
        return {**cls.ABSENT, **document}

    @classmethod
    def keys(cls) -> frozenset[str]:
        """What `--set` may name."""
        return frozenset(cls.model_fields)


class WindowedSettings(RankerSettings):
    """Rankers that look at the end of a history only."""

    history_limit: Annotated[int, Field(ge=1, le=100_000)] = Field(
        200, description="events of history before an impression; count (paper: 100 and 200)"
    )
