"""What streamed after the end of the log: an audit of a live store reads it behind the log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from uic.pipelines.log.epochs import Epoch
from uic.pipelines.log.event_log import LogFile

Positions = Mapping[int, Mapping[int, int]]  # epoch -> partition -> offset


@dataclass(frozen=True)
class LogTail:
    """Events that streamed and are not in the log yet.

    Attributes:
        files: of `BEHAVIOR_EVENTS`, as the log's.
        last_offsets: last offset of each epoch and partition that was looked at.
        shown: files of what was shown, as the log's.
    """

    files: tuple[LogFile, ...] = ()
    last_offsets: Positions = field(default_factory=dict)
    shown: tuple[LogFile, ...] = ()

    def read_with(self, *, shown: bool) -> tuple[LogFile, ...]:
        """The files, with those of what was shown if that is wanted."""
        return (*self.files, *(self.shown if shown else ()))

    def end(self, epoch: Epoch) -> dict[int, int]:
        """By partition, the last offset that log and tail have."""
        of_epoch = self.last_offsets.get(epoch.number, {})
        return {
            partition: max(last, of_epoch.get(partition, last))
            for partition, last in epoch.last_offsets.items()
        }


class TailReader(Protocol):
    """Where a tail comes from."""

    def read(self) -> LogTail:
        """What has streamed by now."""

    def wait_for(self, positions: Positions) -> LogTail:
        """What has streamed when these positions are there, or when nothing more may come."""


class NoTail:
    """A log beside which nothing streams."""

    def read(self) -> LogTail:
        """Nothing."""
        return LogTail()

    def wait_for(self, positions: Positions) -> LogTail:  # noqa: ARG002 - a `TailReader`
        """Nothing, at once."""
        return LogTail()
