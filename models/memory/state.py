"""The state of a user's memory, as named tensors and as the float16 part of a record.

The order of the fields in a record is fixed: M, S, h, r, g, pool; a part that is switched off is
not there. The number of folded events is in the record's header. With 8 slots of width 32 that is
256 + 256 + 32 + 32 + 8 + 32 = 616 numbers, 1,232 bytes, and 1,276 bytes with the header.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor

from uic.models.memory.settings import MemoryConfig
from uic.models.records.record import Records, header_view, state_view

MAX_EVENTS: Final = 2**32 - 1  # the header's counter is uint32 and stays there when full


@dataclass(frozen=True)
class StateField:
    """One field of a state: its name, shape per user, and place among a user's floats."""

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Numbers per user."""
        return int(np.prod(self.shape))

    @property
    def columns(self) -> slice:
        """Where the field lies in a row of `StateLayout.floats` numbers."""
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class StateLayout:
    """Which fields a configuration's state has, in record order, and how many numbers in all."""

    fields: tuple[StateField, ...]
    floats: int

    @classmethod
    def of(cls, config: MemoryConfig) -> Self:
        """The layout of `config`."""
        shapes: dict[str, tuple[int, ...]] = {"M": (config.slots, config.memory_width)}
        if config.induction:
            shapes["S"] = (config.slots, config.channel_width)
        shapes["h"] = (config.controller,)
        shapes["r"] = (config.memory_width,)
        if config.utilization:
            shapes["g"] = (config.slots,)
        shapes["pool"] = (config.event_width,)
        placed: list[StateField] = []
        start = 0
        for name, shape in shapes.items():
            placed.append(StateField(name, shape, start))
            start += placed[-1].size
        return cls(tuple(placed), start)

    def columns(self, name: str) -> slice:
        """The columns of field `name`; an empty slice if it is switched off."""
        for field in self.fields:
            if field.name == name:
                return field.columns
        return slice(0, 0)


@dataclass(frozen=True)
class MemoryState:
    """The memories of a batch of users; a part that is switched off is None.

    Attributes:
        M: (users, slots, memory width), the memory of the Turing machine.
        S: (users, slots, channel width), the channels of the induction unit.
        h: (users, controller), the controller's state.
        r: (users, memory width), the last read vector.
        g: (users, slots), running mean (or sum) of the re-balanced write weights.
        pool: (users, event width), running mean of the events.
        count: (users,), int64, events folded.
    """

    M: Tensor
    S: Tensor | None
    h: Tensor
    r: Tensor
    g: Tensor | None
    pool: Tensor
    count: Tensor

    @property
    def users(self) -> int:
        """Number of users in the batch."""
        return int(self.count.shape[0])

    def map(self, change: Callable[[Tensor], Tensor]) -> "MemoryState":
        """The state with `change` applied to each tensor, `count` included."""
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            changed[field.name] = None if value is None else change(value)
        return MemoryState(**changed)

    def select(self, rows: Tensor | slice) -> "MemoryState":
        """The state of some users."""
        return self.map(lambda tensor: tensor[rows])

    def to_rows(self) -> Tensor:
        """All fields but the count side by side in record order, (users, floats)."""
        parts = [self.M, self.S, self.h, self.r, self.g, self.pool]
        return torch.cat([part.flatten(1) for part in parts if part is not None], dim=1)

    @classmethod
    def from_rows(cls, rows: Tensor, count: Tensor, layout: StateLayout) -> "MemoryState":
        """The inverse of `to_rows`: views of `rows`, (users, floats)."""
        parts: dict[str, Any] = {"S": None, "g": None}
        # One split, not six slices: the gradient is one concatenation, not six sums of zeros.
        columns = torch.split(rows, [field.size for field in layout.fields], dim=1)
        for field, part in zip(layout.fields, columns, strict=True):
            parts[field.name] = part.view(-1, *field.shape)
        return cls(count=count, **parts)

    @classmethod
    def concatenate(cls, states: list["MemoryState"]) -> "MemoryState":
        """The users of several states, one after the other."""
        first = states[0]
        joined: dict[str, Any] = {}
        for field in fields(first):
            values = [getattr(state, field.name) for state in states]
            joined[field.name] = None if values[0] is None else torch.cat(values)
        return cls(**joined)

    def pack(self, records: Records) -> None:
        """Write the states and their counts into records, rounding to float16.

        Args:
            records: (users, record bytes), uint8; the rest of the headers stays as it is.
        """
        # torch converts with the processor's own instruction, numpy in software.
        halves = self.to_rows().detach().to("cpu", torch.float32).half()
        state_view(records, halves.shape[1])[...] = halves.numpy()
        header_view(records)["events"] = np.minimum(self.count.cpu().numpy(), MAX_EVENTS)

    @classmethod
    def unpack(cls, records: Records, layout: StateLayout) -> "MemoryState":
        """The states of records as float32 tensors on the CPU, exact."""
        halves = np.array(state_view(records, layout.floats))  # a copy: torch wants it contiguous
        count = torch.from_numpy(header_view(records)["events"].astype(np.int64))
        return cls.from_rows(torch.from_numpy(halves).float(), count, layout)
