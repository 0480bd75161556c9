"""What a ranker with a large memory can be told; light on purpose (no torch).

The paper gives neither K, nor the width of the memory, nor the weight of its loss, nor the
widths of its networks: each is a setting here.
"""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from uic.models.layers.ranker_settings import RankerSettings, WindowedSettings
from uic.models.settings import Section


class Query(StrEnum):
    """What asks the memory: each event of the history (LMN, eq. 4), or the candidate."""

    HISTORY = "history"
    CANDIDATE = "candidate"


class QueryUser(StrEnum):
    """The user's part of a query (LMN, eq. 4)."""

    ID = "id"
    NONE = "none"


class Merge(StrEnum):
    """How item and user become one query (LMN, eq. 4; the paper concatenates)."""

    CONCATENATE = "concatenate"
    ADD = "add"


class Pooling(StrEnum):
    """How what events found becomes one vector of an impression."""

    MEAN = "mean"
    SUM = "sum"
    ATTENTION = "attention"


class Detach(StrEnum):
    """Which side of the memory loss gets no gradient."""

    NONE = "none"
    QUERY = "query"
    OUTPUT = "output"


class LargeMemorySettings(Section):
    """A large memory: sizes, queries, pooling and loss."""

    lmn_keys: Annotated[int, Field(ge=1, le=10_000)] = Field(
        300, description="row keys and column keys; count, values are its square (paper: 300)"
    )
    lmn_top_k: Annotated[int, Field(ge=1, le=1024)] = Field(
        8, description="values that a query reads; count, at most lmn_keys squared"
    )
    lmn_heads: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="queries per event, each with keys of its own; count, their mean is read"
    )
    lmn_width: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="width of keys and values; 0 = that of an event"
    )
    lmn_query: Query = Field(Query.HISTORY, description="what asks: history|candidate")
    lmn_user: QueryUser = Field(QueryUser.ID, description="user's part of a query: id|none")
    lmn_user_rows: Annotated[int, Field(ge=1)] = Field(
        65_536, description="rows that user ids are hashed to; count"
    )
    lmn_merge: Merge = Field(Merge.CONCATENATE, description="item with user: concatenate|add")
    lmn_pooling: Pooling = Field(
        Pooling.MEAN, description="events to an impression: mean|sum|attention"
    )
    lmn_loss_weight: Annotated[float, Field(ge=0)] = Field(
        0.1, description="factor on the memory loss (alpha; the paper has no value)"
    )
    lmn_loss_beta: Annotated[float, Field(gt=0)] = Field(
        1.0, description="where Smooth-L1 turns from square to line"
    )
    lmn_loss_detach: Detach = Field(
        Detach.NONE, description="side of the memory loss without gradient: none|query|output"
    )

    @model_validator(mode="after")
    def _table_holds_k(self) -> Self:
        values = self.lmn_keys**2
        if self.lmn_top_k > values:
            msg = (
                f"lmn_top_k={self.lmn_top_k} is more than the table's {values} values; "
                f"set it to at most {values}, or raise lmn_keys={self.lmn_keys}"
            )
            raise ValueError(msg)
        return self


class PluggableSettings(RankerSettings):
    """A ranker that can have a large memory beside its own view of the history.

    `memory=lmn` plugs one in, and the keys of `LargeMemorySettings` then stand beside the ranker's
    own, as on the command line and in bundles of version 0.1; or `memory` holds them itself.
    """

    memory: LargeMemorySettings | None = Field(
        None, description="memory beside the ranker's own: none|lmn, and then lmn_* keys"
    )

    @classmethod
    def keys(cls) -> frozenset[str]:
        """See `RankerSettings.keys`: those of the memory stand beside the ranker's."""
        return super().keys() | frozenset(LargeMemorySettings.model_fields)

    @model_validator(mode="before")
    @classmethod
    def _plug(cls, values: Any) -> Any:
        """Move `lmn_*` keys into `memory`."""
        if not isinstance(values, dict):
            return values
        own = {key: value for key, value in values.items() if not key.startswith("lmn_")}
        plugged = {key: value for key, value in values.items() if key.startswith("lmn_")}
        default = cls.model_fields["memory"].get_default(call_default_factory=True)
        memory = own.get("memory", "none" if default is None else "lmn")
        if memory == "none" and plugged and "memory" not in own:
            msg = f"{min(plugged)} is of a large memory; set memory=lmn too"
            raise ValueError(msg)
        if memory in ("none", "lmn"):
            own["memory"] = plugged if memory == "lmn" else None
        elif isinstance(memory, str):
            msg = f"memory is {memory!r}, expected none or lmn"
            raise ValueError(msg)
        return own


class DinSettings(PluggableSettings, WindowedSettings):
    """DIN, with a large memory or without."""


class LmnOnDinSettings(DinSettings):
    """LMN on DIN, the base of the paper's table 1."""

    memory: LargeMemorySettings | None = Field(
        LargeMemorySettings(), description="memory beside the ranker's own: lmn|none"
    )
