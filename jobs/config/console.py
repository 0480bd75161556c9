"""The two consoles: results go to standard output (`OUT`), progress and remarks to `ERR`.

Where standard error is no terminal (a scheduler's log, a container), nothing moves: there, what
takes long says how far it is in a line every `SIGN_SECONDS`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

OUT = Console(soft_wrap=True, highlight=False)
ERR = Console(stderr=True, soft_wrap=True, highlight=False)
# Often enough to see that a run lives, seldom enough for the log of a night.
SIGN_SECONDS = 30.0


def printable(text: str) -> str:
    """A text for a terminal: what is no printable character as Python escapes it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def progress_display() -> Iterator[Progress]:
    """A progress display on standard error; lines where that is not a terminal."""
    display = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=ERR,
        disable=not ERR.is_terminal,
    )
    with display, signs_of_life(lambda: how_far(display)):
        yield display


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say what takes a while and tells nothing of how far it is."""
    with ERR.status(what), signs_of_life(lambda: what):
        yield


def how_far(display: Progress) -> str:
    """The step that runs, and what of it is done."""
    open_tasks = [task for task in display.tasks if not task.finished]
    tasks = open_tasks or display.tasks
    if not tasks:
        return "starting"
    task = tasks[-1]
    if task.total is None:
        return f"{task.description}: {task.completed:,.0f}" if task.completed else task.description
    share = task.completed / max(task.total, 1)
    return f"{task.description}: {task.completed:,.0f} of {task.total:,.0f} ({share:.0%})"


@contextmanager
def signs_of_life(text: Callable[[], str], seconds: float | None = None) -> Iterator[None]:
    """Print a line now and then while the block runs; nothing on a terminal.

    Args:
        text: what there is to say.
        seconds: between lines; None is `SIGN_SECONDS`.
    """
    if ERR.is_terminal:
        yield
        return
    ended, started = Event(), time.monotonic()
    between = SIGN_SECONDS if seconds is None else seconds

    def tell() -> None:
        while not ended.wait(between):
            ERR.print(f"{text()}, for {time.monotonic() - started:.0f} s", markup=False)

    teller = Thread(target=tell, name="signs of life", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
