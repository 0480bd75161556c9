"""Ids of a request: as the client says them, and the numbers that everything inside has.

Where the log was imported with text ids, a request and its answer have them as strings. A number of
63 bits is never in an answer's place of a text: JavaScript would round it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final, Self

from pydantic import Field
from pydantic.config import JsonDict

from uic.pipelines.log.events import MAX_ID
from uic.pipelines.log.text_ids import Kind, TextIds, number_of

# Of an answer.
SaidId = int | str
Id = Annotated[int, Field(ge=0, le=MAX_ID, strict=True)]
TextId = Annotated[str, Field(min_length=1, strict=True)]
_SAID: Final = {"user_id": "customer {}", "item_id": "article/{}"}


def id_type(ids: TextIds, kind: Kind) -> Any:
    """What an id of a request must be."""
    return TextId if ids.are_texts(kind) else Id


def example_of(example: JsonDict, ids: TextIds) -> JsonDict:
    """An example of a request with ids as the log has them."""
    shown: dict[str, Any] = dict(example)
    if ids.are_texts("user"):
        shown["user_id"] = _SAID["user_id"].format(shown["user_id"])
    if ids.are_texts("item"):
        shown["item_ids"] = [_SAID["item_id"].format(item) for item in shown["item_ids"]]
    return shown


@dataclass(frozen=True)
class RequestIds:
    """User and candidates of a request.

    Attributes:
        said_user: as the client says it.
        said_items: candidates as the client says them, repeated ones too.
        user: number.
        items: numbers, parallel to `said_items`.
    """

    said_user: SaidId
    said_items: Sequence[SaidId]
    user: int
    items: Sequence[int]

    @classmethod
    def of(cls, ids: TextIds, user: Any, items: Any) -> Self:
        """The ids of a request that was checked (`id_type`)."""
        numbers = [number_of(text) for text in items] if ids.are_texts("item") else items
        return cls(user, items, number_of(user) if ids.are_texts("user") else user, numbers)

    @cached_property
    def distinct(self) -> list[int]:
        """Numbers of the candidates, each once, in the order of the request."""
        return list(dict.fromkeys(self.items))

    @property
    def duplicates(self) -> int:
        """Candidates that were named again."""
        return len(self.items) - len(self.distinct)

    def told(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The same answer with ids as the client said them."""
        answer["user_id"] = self.said_user
        if self.said_items is not self.items:
            said = dict(zip(self.items, self.said_items, strict=True))
            for item in answer["items"]:
                item["item_id"] = said[item["item_id"]]
        return answer
