"""What a service does while the records are behind: `freshness` in `state.yaml`.

It is about serving, and changes no byte of a record, so it stands in no bundle and in no sum: the
service reads the workspace's own file, and follows it.
"""

from enum import StrEnum

from pydantic import Field, field_validator

from uic.models.settings import Section
from uic.models.state.times import Duration, written

# The stream says every 15 seconds how far it is; what is shorter would come and go.
SHORTEST_MS = 60_000


class WhenBehind(StrEnum):
    """What becomes of an answer."""

    SERVE = "serve"  # with what the record says, and a reason
    DEFAULT = "default"  # as for a new user, and a reason
    REFUSE = "refuse"  # 503


class Freshness(Section):
    """How far the records may be behind the log."""

    at_most: Duration = Field(description="how far; 10m, 2h, ...; at least 1m")
    then: WhenBehind = Field(
        WhenBehind.SERVE, description="of answers while it is longer: serve|default|refuse"
    )

    @field_validator("at_most")
    @classmethod
    def _is_measurable(cls, at_most: int) -> int:
        if at_most < SHORTEST_MS:
            msg = f"{written(at_most)} is shorter than 1m, the least that is noticed"
            raise ValueError(msg)
        return at_most
