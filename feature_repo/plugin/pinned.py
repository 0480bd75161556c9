"""Reading one stated generation of a view through Feast.

Feast's calls have no place to say which generation is meant, and read the live one. A ranker whose
bundle is about to become live reads ahead: inside `pinned(view, number)`, Feast's reads of that
view, synchronous or not, are of that generation.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_PINNED: Final[ContextVar[Mapping[str, int] | None]] = ContextVar("pinned", default=None)


@contextmanager
def pinned(view: str, number: int) -> Iterator[None]:
    """Within this block, reads of `view` are of generation `number`, live or not."""
    token = _PINNED.set({**(_PINNED.get() or {}), view: number})
    try:
        yield
    finally:
        _PINNED.reset(token)


def pinned_generation(view: str) -> int | None:
    """The generation that this task reads of `view`; None for the live one."""
    return (_PINNED.get() or {}).get(view)
