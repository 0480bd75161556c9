"""Several processes that hold a table together: all-to-all exchange, and who died if one did.

`torch.distributed` does the work: gloo between CPUs, NCCL between GPUs. A rank that ends is seen
by the others in their next exchange: each says so in the store, waits a moment for the others to
do the same, and raises `RankDiedError` with the names of those that did not. Nothing hangs: a
rank that is alive but stuck runs into the timeout.
"""

import os
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store

from uic.models.errors import UicError

# How long survivors wait for one another before they name the dead; seconds.
_ROLL_CALL_SECONDS: Final = 3.0


class RankDiedError(UicError):
    """A process of the group ended or does not answer; the step cannot be finished."""


@dataclass
class Traffic:
    """What this rank asked for, and the bytes that it sent to other ranks.

    What stays on a rank is not counted as sent.

    Attributes:
        wanted: rows asked for, each as often as a batch wants it; count.
        distinct: the same, each once in a request; count.
        ids: of requests.
        values: of answers.
        gradients: of updates.
        sums: of sums over all ranks, as a ring sends them: 2 (ranks - 1) / ranks of each.
        copies: of what rank 0 gets whole for checkpoints, and all ranks for tests.
    """

    wanted: int = 0
    distinct: int = 0
    ids: int = 0
    values: int = 0
    gradients: int = 0
    sums: int = 0
    copies: int = 0


@dataclass
class ShardWorld:
    """A process group, as seen by one of its ranks.

    Attributes:
        rank: of this process.
        size: number of processes.
        device: where exchanged tensors live.
        store: shared by all ranks; it must outlive a rank for the dead to be named.
        traffic: byte counters.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    store: Store | None = None
    traffic: Traffic = field(default_factory=Traffic)

    @classmethod
    def join(
        cls,
        store: Store,
        rank: int,
        size: int,
        *,
        timeout_seconds: float = 60.0,
        cuda: bool | None = None,
    ) -> "ShardWorld":
        """Join a group over NCCL if there is a GPU for each rank of this machine, else gloo.

        Args:
            store: of all ranks.
            rank: from 0.
            size: number of ranks.
            timeout_seconds: after which a rank that does not answer counts as dead.
            cuda: False for gloo where there are GPUs too.
        """
        local = int(os.environ.get("LOCAL_RANK", rank))
        if cuda is None:  # the same answer on every rank of this machine
            cuda = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", size))
        device = torch.device("cuda", local) if cuda else torch.device("cpu")
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout_seconds),
        )
        return cls(rank, size, device, store)

    def leave(self) -> None:
        """Leave the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def exchange_counts(self, counts: Tensor) -> Tensor:
        """(size,) numbers for each rank to (size,) numbers from each rank; int64."""
        received = torch.empty_like(counts)
        self._exchange(received, counts, None, None)
        return received

    def exchange(self, values: Tensor, sent: list[int], received: list[int]) -> Tensor:
        """Rows for each rank to rows from each rank.

        Args:
            values: (sum(sent), ...), rank after rank.
            sent: rows for each rank.
            received: rows from each rank.

        Returns:
            (sum(received), ...).

        Raises:
            RankDiedError: names the ranks that are gone.
        """
        arrived = values.new_empty((sum(received), *values.shape[1:]))
        self._exchange(arrived, values.contiguous(), received, sent)
        return arrived

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks, element by element; every rank gets the same bits.

        Args:
            values: of one shape and dtype on all ranks.

        Raises:
            RankDiedError: names the ranks that are gone.
        """
        total = values.clone()
        if self.size > 1:
            size = values.numel() * values.element_size()
            self.traffic.sums += 2 * (self.size - 1) * size // self.size
            try:
                dist.all_reduce(total)
            except RuntimeError as error:
                raise self._roll_call() from error
        return total

    def from_all(self, rows: Tensor) -> list[Tensor]:
        """The rows of every rank, rank by rank: (n, ...) to (n of that rank, ...) each."""
        count = torch.full((self.size,), rows.shape[0], dtype=torch.int64, device=rows.device)
        counts = self.exchange_counts(count).tolist()
        self.traffic.copies += (self.size - 1) * rows.numel() * rows.element_size()
        sent = [rows.shape[0]] * self.size
        arrived = self.exchange(torch.cat([rows] * self.size), sent, counts)
        return list(torch.split(arrived, counts))

    def at_first(self, rows: Tensor) -> list[Tensor]:
        """As `from_all`, but on rank 0 alone; an empty list on the others."""
        sent = [rows.shape[0], *[0] * (self.size - 1)]
        counts = self.exchange_counts(torch.tensor(sent, device=rows.device)).tolist()
        arrived = self.exchange(rows, sent, counts)
        if self.rank == 0:
            return list(torch.split(arrived, counts))
        self.traffic.copies += rows.numel() * rows.element_size()
        return []

    def barrier(self) -> None:
        """Wait for all."""
        self.exchange_counts(torch.zeros(self.size, dtype=torch.int64, device=self.device))

    def sent_elsewhere(self, sent: list[int]) -> int:
        """Of rows for each rank, those that leave this one."""
        return sum(sent) - sent[self.rank]

    def _exchange(
        self,
        received: Tensor,
        sent: Tensor,
        received_rows: list[int] | None,
        sent_rows: list[int] | None,
    ) -> None:
        if self.size == 1:
            received.copy_(sent)
            return
        try:
            dist.all_to_all_single(received, sent, received_rows, sent_rows)
        except RuntimeError as error:
            raise self._roll_call() from error

    def _roll_call(self) -> RankDiedError:
        """Say that this rank is alive, and name those that do not."""
        missing = [rank for rank in range(self.size) if rank != self.rank]
        if self.store is not None:
            try:
                self.store.set(f"uic/alive/{self.rank}", "1")
                until = time.monotonic() + _ROLL_CALL_SECONDS
                while missing and time.monotonic() < until:
                    missing = [
                        rank for rank in missing if not self.store.check([f"uic/alive/{rank}"])
                    ]
                    time.sleep(0.02)
            except RuntimeError:  # the store itself is gone, and with it the rank that held it
                missing = [0]
        names = ", ".join(f"rank {rank}" for rank in missing) or "unknown rank"
        msg = (
            f"{names} of {self.size} ended or does not answer (seen by rank {self.rank}); "
            "start all ranks again from the last checkpoint"
        )
        return RankDiedError(msg)
