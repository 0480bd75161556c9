"""The memories pipeline without its edges: log parts and snapshot files to what each bucket gives.

Rows travel once, as IPC bytes keyed by user bucket. How a part is read and what becomes of a
bucket are functions from outside, so the transform itself does no IO.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from uic.pipelines.memories.read import EVENT_COLUMNS, MEMORY_COLUMNS
from uic.pipelines.overlapped import OverlappedMap
from uic.pipelines.samples.shuffle import from_ipc, split_by_bucket

EVENTS: Final = "events"
MEMORIES: Final = "memories"
_FACTS: Final = "facts"

Read = Callable[[Any], tuple[pa.Table, Any]]
Fold = Callable[[int, pa.Table, pa.Table], Any]


class FoldMemories(beam.PTransform):  # type: ignore[misc]  # Beam has no types
    """{`events`, `memories`: parts} -> {`buckets`, `read`: what became of them}.

    Args:
        buckets: of users; one must fit memory.
        read_events: part -> (`EVENT_COLUMNS`, anything to say of it).
        read_memories: part -> (`MEMORY_COLUMNS`, anything to say of it).
        fold: (bucket, memories, events) -> output; may be called more than once for a bucket.
        threads: parts or buckets in work at once on one worker.
    """

    def __init__(
        self, buckets: int, read_events: Read, read_memories: Read, fold: Fold, threads: int
    ) -> None:
        super().__init__()
        self._buckets = buckets
        self._read = {EVENTS: read_events, MEMORIES: read_memories}
        self._fold = fold
        self._threads = threads

    def expand(self, parts: Any) -> Any:
        """Beam's hook: the named steps."""
        split = {
            name: parts[name]
            | f"Split{name.title()}"
            >> beam.ParDo(
                OverlappedMap(_splitter(read, self._buckets), self._threads)
            ).with_outputs(_FACTS, main="rows")
            for name, read in self._read.items()
        }
        rows = {
            name: outputs.rows
            | f"Keyed{name.title()}" >> beam.Map(_as_is).with_output_types(tuple[int, bytes])
            for name, outputs in split.items()
        }
        buckets = (
            rows
            | "ByBucket" >> beam.CoGroupByKey()
            | "Fold" >> beam.ParDo(OverlappedMap(_folder(self._fold), self._threads))
        )
        return {"buckets": buckets, "read": split[EVENTS][_FACTS]}


def _as_is(element: tuple[int, bytes]) -> tuple[int, bytes]:
    return element


def _splitter(read: Read, buckets: int) -> Callable[[Any], list[Any]]:
    def split(part: Any) -> list[Any]:
        table, facts = read(part)
        return [TaggedOutput(_FACTS, facts), *split_by_bucket(table, buckets)]

    return split


def _folder(fold: Fold) -> Callable[[Any], list[Any]]:
    def fold_one(element: tuple[int, dict[str, Iterable[bytes]]]) -> list[Any]:
        bucket, parts = element
        memories = from_ipc(parts[MEMORIES], MEMORY_COLUMNS)
        events = from_ipc(parts[EVENTS], EVENT_COLUMNS)
        return [fold(bucket, memories, events)]

    return fold_one
