"""How models are trained (MIMN, section 5.1): the section `train` of `uic.yaml`."""

from typing import Annotated, Any, Final

from pydantic import Field

from uic.models.features.definition import NAME_PATTERN
from uic.models.settings import ADVANCED, Section

# With validation days a run ends where its AUC no longer rises, and seldom comes so far; without
# them nothing says where a model begins to learn its training days by heart.
MOST_EPOCHS: Final = 10
BLIND_EPOCHS: Final = 2


class TrainSettings(Section):
    """Training: batches, Adam, vocabulary. `uic train --set key=value` overrides a field."""

    epochs: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None,
        description="passes over the training days, with validation days at most; count, "
        f"null = {MOST_EPOCHS} at most with validation days, {BLIND_EPOCHS} without",
    )
    patience: Annotated[int, Field(ge=1, le=1000)] = Field(
        2, description="epochs without a better AUC of the validation days that end a run; count"
    )
    batch_impressions: Annotated[int, Field(ge=1)] = Field(
        256, description="a batch closes at this many impressions; count"
    )
    batch_events: Annotated[int, Field(ge=1)] = Field(
        100_000, description="or at this many history events, whichever is first; count"
    )
    buffer_groups: Annotated[int, Field(ge=1)] = Field(
        16_384,
        description="groups held in memory to shuffle and to sort by length; count",
        json_schema_extra=ADVANCED,
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.002, description="Adam's learning rate at step 0 (paper: 0.001)"
    )
    decay_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="factor on the learning rate after decay_steps (paper: 0.9)"
    )
    decay_steps: Annotated[int, Field(ge=1)] = Field(
        500, description="steps after which the learning rate has fallen by decay_rate; count"
    )
    gradient_clip: Annotated[float, Field(ge=0)] = Field(
        5.0, description="largest norm of the gradient of all weights together; 0 = no limit"
    )
    short_history_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05,
        description="impressions that training shows with the first few events of their history "
        "alone, or none, so that new users are ranked, too; share, 0 to 1",
    )
    min_count: Annotated[int, Field(ge=1)] = Field(
        2, description="ids that occur fewer times share the spare rows; count, 1 = none do"
    )
    features: bool = Field(
        default=True,
        description="whether the model sees the samples' features beside ids: true|false",
    )
    task_weights: dict[
        Annotated[str, Field(pattern=NAME_PATTERN)], Annotated[float, Field(gt=0, le=1000)]
    ] = Field(
        {},
        description="labels of the samples that are learned beside the click, each by a head of "
        "its own, with the weight of its loss: {name: weight}; above 0, at most 1000",
    )
    spare_item_rows: Annotated[int, Field(ge=1)] = Field(
        256, description="rows for items that training has not seen; count"
    )
    spare_category_rows: Annotated[int, Field(ge=1)] = Field(
        16,
        description="rows for categories that training has not seen; count",
        json_schema_extra=ADVANCED,
    )
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = Field(
        500,
        description="steps between checkpoints that a killed run resumes from; count",
        json_schema_extra=ADVANCED,
    )
    curve_every_steps: Annotated[int, Field(ge=1)] = Field(
        50,
        description="steps that one point of the learning curve is the mean of; count",
        json_schema_extra=ADVANCED,
    )

    def document(self) -> dict[str, Any]:
        """As JSON; a run without tasks or patience is what it was before there were any."""
        fields = type(self).model_fields
        left_out = {
            name
            for name in ("task_weights", "patience")
            if getattr(self, name) == fields[name].default
        }
        return self.model_dump(mode="json", exclude=left_out)
