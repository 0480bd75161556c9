"""Starts one local process per rank, monitors them and collects their results.

The processes are those of `torch.distributed.elastic`, which ends all when one fails. What it does
not do is here: a rank's error is told with its type, and ranks end when the process that started
them is gone, so that none is left behind to write over what a later run does.
"""

import json
import logging
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes

from uic.models.errors import BadInputError, UicError
from uic.models.sharding.world import ShardWorld

Work = Callable[[ShardWorld, Any], Any]

# torch's own second is most of a short run.
_POLL_SECONDS: Final = 0.05


class RankFailedError(UicError):
    """A rank ended with an error, or without a word."""


@dataclass(frozen=True)
class _Place:
    """Where a rank joins.

    Attributes:
        folder: for the error of a rank.
        port: of the store.
        size: number of ranks.
        timeout_seconds: of an exchange.
        cuda: as `run_ranks` has it.
    """

    folder: Path
    port: int
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
    multiprocessing.set_forkserver_preload(["uic.models.sharding.rank_trainer"])
    # It logs the traceback of a rank that failed; the error that is raised here says the same.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="uic-ranks-") as name:
        place = _Place(Path(name), store.port, size, timeout_seconds, cuda)
        ranks = start_processes(
            name="rank",
            entrypoint=_run_rank,
            args={rank: (rank, place, work, argument) for rank in range(size)},
            envs={rank: {} for rank in range(size)},
            logs_specs=DefaultLogsSpecs(log_dir=name),
            # Not by fork: a child would inherit locks that threads of this process hold.
            start_method="forkserver",
        )
        try:
            result = ranks.wait(period=_POLL_SECONDS)
        finally:
            ranks.close()
        if result is not None and result.failures:
            raise _error_of(min(result.failures), place.folder)
    assert result is not None  # noqa: S101 - `wait` without a timeout returns at the end
    return [result.return_values[rank] for rank in range(size)]


def _error_of(rank: int, folder: Path) -> RankFailedError:
    """What a rank wrote before it ended; a rank that was killed wrote nothing."""
    path = _error_file(folder, rank)
    if not path.exists():
        return RankFailedError(
            f"rank {rank} ended without an answer; if it was killed, start the run again: it goes "
            "on from its last checkpoint"
        )
    document = json.loads(path.read_text(encoding="utf-8"))
    error = RankFailedError(document["error"])
    error.exit_code = document["exit_code"]  # type: ignore[misc] # of this one error
    return error


def _error_file(folder: Path, rank: int) -> Path:
    return folder / f"error-{rank}.json"


def _end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, killed or not."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(3)


def _run_rank(rank: int, place: _Place, work: Work, argument: Any) -> Any:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max((os.cpu_count() or 1) // place.size, 1))
    try:
        world = _join(rank, place)
        result = work(world, argument)
        world.leave()
    except BaseException as error:  # whatever it was, the parent says it
        document = {
            "error": f"{type(error).__name__}: {error}",
            "exit_code": error.exit_code if isinstance(error, UicError) else 1,
        }
        _error_file(place.folder, rank).write_text(json.dumps(document), encoding="utf-8")
        os._exit(3)  # without torch's shutdown, which waits for ranks that are gone
    return result


def _join(rank: int, place: _Place) -> ShardWorld:
    if place.size == 1:
        return ShardWorld()
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", place.port, is_master=False
    )
    return ShardWorld.join(
        store, rank, place.size, timeout_seconds=place.timeout_seconds, cuda=place.cuda
    )
