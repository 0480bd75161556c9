"""The section `audit` of `uic.yaml`: whom it takes, and how exact a memory must be."""

from typing import Annotated

from pydantic import Field

from uic.models.settings import ADVANCED, Section


class AuditSettings(Section):
    """The comparison of what is served with a fold of the log."""

    sample_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01,
        description="share of users that are taken, by a hash of their id, so that the same ones "
        "are taken in the log and in the store; ratio, 0 (excluded) to 1",
    )
    feast_users: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        1000,
        description="users of the live generation that are read through Feast's own API, the "
        "others in bulk below it; count, 0 = none",
        json_schema_extra=ADVANCED,
    )
    tolerance: Annotated[float, Field(ge=0, le=10)] = Field(
        0.05,
        description="largest difference of a number of a memory that was folded on another type "
        "of machine or torch build than the audit's; on the same it is 0; 0 to 10",
    )
    examples: Annotated[int, Field(ge=0, le=1000)] = Field(
        5,
        description="users named for each kind of mismatch; count, 0 to 1000",
        json_schema_extra=ADVANCED,
    )
