"""Ranks as processes of this machine: started, watched, and their answers brought home.

On many machines `torchrun` starts them, and `ShardWorld.from_environment` joins them.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from models.errors import BadInputError, UicError
from models.shard_world import RankDiedError, ShardWorld

Work = Callable[[ShardWorld, Any], Any]


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


def run_ranks(size: int, work: Work, argument: Any, *, timeout_seconds: float = 600.0) -> list[Any]:
    """Run `work(world, argument)` on `size` ranks; the result of each.

    Args:
        size: number of processes.
        work: a function that a fresh process can import by name.
        argument: can be pickled.
        timeout_seconds: of an exchange; a rank that does not answer for so long counts as dead.

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
    context.set_forkserver_preload(["models.ams_trainer"])
    children = []
    try:
        for rank in range(size):
            here, there = context.Pipe(duplex=False)
            process = context.Process(
                target=_child,
                args=(there, _Place(store.port, rank, size, timeout_seconds), work, argument),
                daemon=True,
            )
            process.start()
            there.close()
            children.append((process, here))
        answers = [_receive(rank, here) for rank, (_, here) in enumerate(children)]
    finally:
        for process, here in children:
            here.close()
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
                process.join()
    failed = [answer for answer in answers if answer.error]
    # A rank that misses another says so; the reason is with the other.
    failed.sort(key=lambda answer: answer.error == RankDiedError.__name__)
    if failed:
        raise _error_of(failed[0])
    return [answer.result for answer in answers]


def _error_of(answer: _Answer) -> RankFailedError:
    error = RankFailedError(f"{answer.error}: {answer.text}")
    error.exit_code = answer.exit_code  # type: ignore[misc] # of this one error
    return error


def _receive(rank: int, connection: Connection) -> _Answer:
    try:
        answer: _Answer = connection.recv()
    except EOFError:
        return _Answer(error="rank", text=f"rank {rank} ended without an answer; was it killed?")
    return answer


def _join(place: _Place) -> ShardWorld:
    if place.size == 1:
        return ShardWorld()
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", place.port, is_master=False
    )
    return ShardWorld.join(store, place.rank, place.size, timeout_seconds=place.timeout_seconds)


def _child(connection: Connection, place: _Place, work: Work, argument: Any) -> None:
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
