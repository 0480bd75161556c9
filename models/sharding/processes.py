"""Ranks as processes of this machine: started, watched, and their answers brought home.

A rank that dies ends the others, and the process that started them takes all of them with it: none
is left behind to write over what a later run does. On many machines `torchrun` starts them, and
`ShardWorld.from_environment` joins them.
"""

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Final

import torch
import torch.distributed as dist

from uic.models.errors import BadInputError, UicError
from uic.models.sharding.world import RankDiedError, ShardWorld

Work = Callable[[ShardWorld, Any], Any]

# How long the others may take to say who they miss, once a rank has failed: a roll call
# (`uic.models.sharding.world`) takes 3 seconds. Who is still joining or computing then, is ended.
_LAST_WORDS_SECONDS: Final = 5.0
# The error of a rank that could not say one.
_SILENT: Final = "silent"


class RankFailedError(UicError):
    """A rank ended with an error, or without a word."""


@dataclass(frozen=True)
class _Answer:
    result: Any = None
    error: str = ""
    text: str = ""
    exit_code: int = 2


@dataclass(frozen=True)
class _Place:
    port: int
    rank: int
    size: int
    timeout_seconds: float
    cuda: bool | None


def run_ranks(
    size: int,
    work: Work,
    argument: Any,
    *,
    timeout_seconds: float = 600.0,
    cuda: bool | None = None,
) -> list[Any]:
    """Run `work(world, argument)` on `size` ranks; the result of each.

    Args:
        size: number of processes.
        work: a function that a fresh process can import by name.
        argument: can be pickled.
        timeout_seconds: of an exchange; a rank that does not answer for so long counts as dead.
        cuda: True for NCCL, False for gloo; None for NCCL where each rank has a GPU.

    Raises:
        BadInputError: fewer than one rank.
        RankFailedError: the first error of a rank, its type and text; the others are ended.
    """
    if size < 1:
        msg = f"{size} ranks; expected at least 1"
        raise BadInputError(msg)
    # The store is held here, so that it outlives any rank.
    store = dist.TCPStore(  # type: ignore[attr-defined] # torch does not export it by name
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    # Not by fork: a child would inherit locks that threads of this process hold.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["uic.models.sharding.rank_trainer"])
    children = []
    answers: dict[int, _Answer] = {}
    try:
        for rank in range(size):
            here, there = context.Pipe(duplex=False)
            process = context.Process(
                target=_child,
                args=(there, _Place(store.port, rank, size, timeout_seconds, cuda), work, argument),
                daemon=True,
            )
            process.start()
            there.close()
            children.append((process, here))
        _receive_all([here for _, here in children], answers)
    finally:
        for rank, (process, here) in enumerate(children):
            here.close()
            process.join(timeout=10 if rank in answers else 0)
            if process.is_alive():
                process.kill()
                process.join()
    failed = [answer for _, answer in sorted(answers.items()) if answer.error]
    # A rank that misses another says so; the reason is with the other.
    failed.sort(key=lambda answer: answer.error == RankDiedError.__name__)
    if failed:
        raise _error_of(failed[0])
    return [answers[rank].result for rank in range(size)]


def _error_of(answer: _Answer) -> RankFailedError:
    text = answer.text if answer.error == _SILENT else f"{answer.error}: {answer.text}"
    error = RankFailedError(text)
    error.exit_code = answer.exit_code  # type: ignore[misc] # of this one error
    return error


def _receive_all(connections: list[Connection], answers: dict[int, _Answer]) -> None:
    """Every rank's answer; once one has failed, those that the others give soon."""
    until: float | None = None
    while len(answers) < len(connections):
        left = None if until is None else max(until - time.monotonic(), 0)
        pending = [here for rank, here in enumerate(connections) if rank not in answers]
        ready = wait(pending, left)
        if not ready:
            return
        for rank, here in enumerate(connections):
            if here in ready:
                answers[rank] = _receive(rank, here)
        if until is None and any(answer.error for answer in answers.values()):
            until = time.monotonic() + _LAST_WORDS_SECONDS


def _receive(rank: int, connection: Connection) -> _Answer:
    try:
        answer: _Answer = connection.recv()
    except EOFError:
        text = (
            f"rank {rank} ended without an answer; if it was killed, start the run again: it goes "
            "on from its last checkpoint"
        )
        return _Answer(error=_SILENT, text=text)
    return answer


def _join(place: _Place) -> ShardWorld:
    if place.size == 1:
        return ShardWorld()
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", place.port, is_master=False
    )
    return ShardWorld.join(
        store, place.rank, place.size, timeout_seconds=place.timeout_seconds, cuda=place.cuda
    )


def _end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, killed or not."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(3)


def _child(connection: Connection, place: _Place, work: Work, argument: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max((os.cpu_count() or 1) // place.size, 1))
    status = 0
    try:
        world = _join(place)
        answer = _Answer(work(world, argument))
        world.leave()
    except BaseException as error:  # whatever it was, the parent says it
        code = error.exit_code if isinstance(error, UicError) else 1
        answer = _Answer(error=type(error).__name__, text=str(error), exit_code=code)
        status = 3
    with contextlib.suppress(OSError):  # the parent is gone
        connection.send(answer)
    connection.close()
    os._exit(status)  # without torch's shutdown, which waits for ranks that are gone
