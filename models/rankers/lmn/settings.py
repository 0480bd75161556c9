"""What a ranker with a large memory can be told; light on purpose (no torch).

The paper gives neither K, nor the width of the memory, nor the weight of its loss, nor the
widths of its networks: each is a setting here.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from uic.models.layers.ranker_settings import RankerSettings, WindowedSettings
from uic.models.settings import Section


class Memory(StrEnum):
    """What a ranker has beside its own view of the history."""

    NONE = "none"
    LMN = "lmn"


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


class LmnSettings(Section):
    """The large memory that can be plugged into a ranker (`memory=lmn`)."""

    memory: Memory = Field(Memory.NONE, description="memory beside the ranker's own: none|lmn")
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


class PoolingSettings(LmnSettings, RankerSettings):
    """Pooling over the whole history, with a large memory or without."""


class DinSettings(LmnSettings, WindowedSettings):
    """DIN, with a large memory or without."""


class LmnOnDinSettings(DinSettings):
    """LMN on DIN, the base of the paper's table 1."""

    memory: Memory = Field(Memory.LMN, description="memory beside the ranker's own: none|lmn")
