"""How something that takes time tells its caller how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with (step, done, total); a total of None is not known yet."""


def no_progress(step: str, done: int, total: int | None) -> None:
    """Report nothing."""
    del step, done, total


def say_nothing(line: str) -> None:
    """Tell a remark to no reader."""
    del line
