"""Positions across files: a partition's positions are there once, and its log time never falls.

Within a file, neighbours tell (`rows`). Between files, each file gives one line for every
partition: the range of its offsets and of its log times. Ranges that follow each other need no
further look; only where two overlap are the offsets themselves read again, of that partition and
overlap alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from uic.pipelines.log.event_log import LogFile
from uic.pipelines.quality.rows import JudgedRows

_KEY = ["epoch", "partition"]


@dataclass(frozen=True)
class CrossFault:
    """Rows of `file` that break a rule together with an earlier file.

    Args:
        metric: which rule.
        file: the later file.
        rows: how many rows.
        text: for people: partition, offsets and both files.
    """

    metric: str
    file: LogFile
    rows: int
    text: str


@dataclass
class PartitionRuns:
    """Collects the runs of equal (epoch, partition) of every file."""

    _files: list[LogFile] = field(default_factory=list)
    _runs: list[pd.DataFrame] = field(default_factory=list)

    def add(self, file: LogFile, rows: JudgedRows) -> None:
        """Note the runs of one batch of `file`."""
        if not rows.batch.num_rows:
            return
        if not self._files or self._files[-1] is not file:
            self._files.append(file)
        starts = np.flatnonzero(~rows.same_partition())
        if not len(starts) or starts[0]:
            starts = np.r_[0, starts]  # a run that the batch before began
        offsets, times = rows.values("offset"), rows.values("log_time")
        runs = {
            "epoch": rows.values("epoch")[starts],
            "partition": rows.values("partition")[starts],
            "low": np.minimum.reduceat(offsets, starts),
            "high": np.maximum.reduceat(offsets, starts),
            "earliest": np.minimum.reduceat(times, starts),
            "latest": np.maximum.reduceat(times, starts),
        }
        self._runs.append(pd.DataFrame({"file": len(self._files) - 1, **runs}))

    def faults_across_files(self) -> Iterator[CrossFault]:
        """Every pair of neighbouring files that breaks a rule, in the order of positions."""
        if not self._runs:
            return
        aggregate = {"low": "min", "high": "max", "earliest": "min", "latest": "max"}
        runs = pd.concat(self._runs).groupby([*_KEY, "file"], as_index=False).agg(aggregate)
        runs = runs.sort_values([*_KEY, "low", "high", "file"], kind="stable")
        for _, ranges in runs.groupby(_KEY, sort=True):
            epoch, partition = (int(ranges[name].iloc[0]) for name in _KEY)
            yield from self._faults_of_partition(epoch, partition, ranges)

    def _faults_of_partition(
        self, epoch: int, partition: int, ranges: pd.DataFrame
    ) -> Iterator[CrossFault]:
        reached = ranges["high"].cummax()
        cluster = (ranges["low"] > reached.shift(fill_value=-1)).cumsum()
        latest, latest_file = None, -1
        for _, files in ranges.groupby(cluster.to_numpy(), sort=True):
            later = int(files["file"].iloc[0])
            if latest is not None and int(files["earliest"].min()) < latest:
                text = (
                    f"epoch {epoch} partition {partition} from offset {files['low'].iloc[0]}: "
                    f"{self._name(later)} begins before {self._name(latest_file)} ends"
                )
                yield CrossFault("log_time.falls", self._files[later], 1, text)
            if len(files) > 1:
                yield from self._faults_of_overlap(epoch, partition, files)
            latest, latest_file = int(files["latest"].max()), int(files["file"].iloc[-1])

    def _faults_of_overlap(
        self, epoch: int, partition: int, ranges: pd.DataFrame
    ) -> Iterator[CrossFault]:
        """Read the positions of files whose ranges overlap, and judge them in one order."""
        tables = [self._positions(int(at), epoch, partition) for at in ranges["file"]]
        rows = pd.concat(tables).sort_values(["offset", "log_time", "file"], kind="stable")
        same = rows["offset"].eq(rows["offset"].shift())
        other_file = rows["file"].ne(rows["file"].shift())
        falls = rows["log_time"].lt(rows["log_time"].shift()) & ~same
        for metric, broken in (("offset.duplicates", same), ("log_time.falls", falls)):
            # Faults between rows of one file are counted where the file is read.
            faulty = rows[broken & other_file]
            for _, of_file in faulty.groupby("file", sort=True):
                at = int(of_file["file"].iloc[0])
                text = (
                    f"epoch {epoch} partition {partition} offset {of_file['offset'].iloc[0]}: "
                    f"{self._name(at)} overlaps another file"
                )
                yield CrossFault(metric, self._files[at], len(of_file), text)

    def _positions(self, at: int, epoch: int, partition: int) -> pd.DataFrame:
        table = pq.read_table(
            self._files[at].path,
            columns=["offset", "log_time"],
            filters=[("epoch", "==", epoch), ("partition", "==", partition)],
        )
        times = table["log_time"].cast("int64")
        return pd.DataFrame(
            {"offset": table["offset"].to_numpy(), "log_time": times.to_numpy(), "file": at}
        )

    def _name(self, at: int) -> str:
        return "/".join(self._files[at].path.parts[-2:])
