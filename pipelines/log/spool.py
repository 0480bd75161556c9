"""Rows on their way to another order, on disk: written in any order, read back key by key.

Rows collect in memory until a run is full; a run is brought into key order (stable, so rows of
one key keep the order they came in) and written as one uncompressed Arrow file, which is read
through the page cache without a copy. Memory is one run, whatever the size of the input; the
number of open files is the number of runs, whatever the number of keys. The mapped pages count as
resident (`RssFile`) and grow with the input, but the system takes them back when it needs them;
`RssAnon` is what a process needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# About 100 MB of behaviours: large enough that a key has few pieces, small beside any machine.
RUN_ROWS = 1 << 21


@dataclass(frozen=True)
class _Run:
    batch: pa.RecordBatch
    keys: NDArray[np.int32]  # distinct, ascending
    starts: NDArray[np.int64]  # (keys + 1,), where each key's rows begin


class KeyedSpool:
    """Rows by key, under `directory`.

    Args:
        directory: an empty or missing folder; it belongs to the spool until `close`.
        run_rows: rows that are held in memory before a run is written.
    """

    def __init__(self, directory: Path, run_rows: int = RUN_ROWS) -> None:
        self._directory = directory
        self._run_rows = run_rows
        self._tables: list[pa.Table] = []
        self._keys: list[NDArray[np.int32]] = []
        self._held = 0
        self._runs: list[_Run] = []

    def add(self, table: pa.Table, keys: NDArray[np.int32]) -> None:
        """Take rows; `keys` is (rows,). Every table has the same schema."""
        for start in range(0, table.num_rows, self._run_rows):
            piece = table.slice(start, self._run_rows)
            self._tables.append(piece)
            self._keys.append(keys[start : start + piece.num_rows])
            self._held += piece.num_rows
            if self._held >= self._run_rows:
                self.flush()

    def flush(self) -> None:
        """Write the run that is held in memory; reading needs it."""
        if not self._held:
            return
        table, keys = pa.concat_tables(self._tables), np.concatenate(self._keys)
        self._tables, self._keys, self._held = [], [], 0
        if np.any(keys[1:] < keys[:-1]):
            order = np.argsort(_narrow(keys), kind="stable")
            table, keys = table.combine_chunks().take(pa.array(order)), keys[order]
        batch = table.combine_chunks().to_batches()[0]
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"run-{len(self._runs):05d}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        mapped = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        firsts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
        starts = np.r_[firsts, len(keys)].astype(np.int64)
        self._runs.append(_Run(mapped, keys[firsts], starts))

    def keys(self) -> list[int]:
        """All keys, ascending."""
        self.flush()
        distinct: set[int] = set()
        for run in self._runs:
            distinct.update(run.keys.tolist())
        return sorted(distinct)

    def pieces(self, key: int) -> Iterator[pa.RecordBatch]:
        """The rows of a key in the order they came in, one piece a run, not copied."""
        self.flush()
        for run in self._runs:
            at = int(np.searchsorted(run.keys, key))
            if at < len(run.keys) and run.keys[at] == key:
                start, end = int(run.starts[at]), int(run.starts[at + 1])
                yield run.batch.slice(start, end - start)

    def close(self) -> None:
        """Remove the files."""
        self._runs, self._tables, self._keys, self._held = [], [], [], 0
        if self._directory.exists():
            for path in self._directory.iterdir():
                path.unlink()
            self._directory.rmdir()


def _narrow(keys: NDArray[np.int32]) -> NDArray[np.generic]:
    """Keys as uint16 where they fit: numpy then sorts by radix, ten times as fast."""
    low = int(keys.min())
    return (keys - low).astype(np.uint16) if int(keys.max()) - low < 1 << 16 else keys
