"""The samples pipeline without its edges: from parts of the log to what is made of each bucket.

Rows go through one shuffle, as IPC bytes keyed by user bucket. `CoGroupByKey` gives them in any
order, which is why `group_bucket` sorts. How a part is read and what becomes of a bucket's groups
are functions from outside, so the transform itself does no IO.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from uic.pipelines.overlapped import OverlappedMap
from uic.pipelines.samples.build import GroupedBucket, group_bucket
from uic.pipelines.samples.order import BEHAVIOR_COLUMNS, IMPRESSION_COLUMNS
from uic.pipelines.samples.plan import SamplesPlan
from uic.pipelines.samples.shuffle import from_ipc, split_by_bucket

BEHAVIORS: Final = "behaviors"
IMPRESSIONS: Final = "impressions"
_FACTS: Final = "facts"

Read = Callable[[Any], tuple[pa.Table, Any]]
Consume = Callable[[int, GroupedBucket], Any]


class GroupSamples(beam.PTransform):  # type: ignore[misc]  # Beam has no types
    """{`behaviors`, `impressions`: parts of the log} -> {`buckets`, `read`: what became of them}.

    Args:
        plan: what the samples are.
        read_behaviors: part -> (`BEHAVIOR_COLUMNS`, anything to say of it).
        read_impressions: part -> (`IMPRESSION_COLUMNS`, anything to say of it).
        consume: (bucket, its groups) -> output; runs where the groups are, so that they never
            travel. Called for every bucket that has rows, maybe more than once.
        threads: parts and buckets in work at once on one worker.
    """

    def __init__(
        self,
        plan: SamplesPlan,
        read_behaviors: Read,
        read_impressions: Read,
        consume: Consume,
        threads: int,
    ) -> None:
        super().__init__()
        self._plan = plan
        self._read = {BEHAVIORS: read_behaviors, IMPRESSIONS: read_impressions}
        self._consume = consume
        self._threads = threads

    def expand(self, parts: Any) -> Any:
        """Beam's hook: the named steps."""
        split = {
            name: parts[name]
            | f"Split{name.title()}"
            >> beam.ParDo(
                OverlappedMap(_splitter(read, self._plan.buckets), self._threads)
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
            | "Build"
            >> beam.ParDo(OverlappedMap(_builder(self._plan, self._consume), self._threads))
        )
        facts = [outputs[_FACTS] for outputs in split.values()] | "Read" >> beam.Flatten()
        return {"buckets": buckets, "read": facts}


def _as_is(element: tuple[int, bytes]) -> tuple[int, bytes]:
    return element


def _splitter(read: Read, buckets: int) -> Callable[[Any], list[Any]]:
    def split(part: Any) -> list[Any]:
        table, facts = read(part)
        return [TaggedOutput(_FACTS, facts), *split_by_bucket(table, buckets)]

    return split


def _builder(plan: SamplesPlan, consume: Consume) -> Callable[[Any], list[Any]]:
    def build(element: tuple[int, dict[str, Iterable[bytes]]]) -> list[Any]:
        bucket, parts = element
        behaviors = from_ipc(parts[BEHAVIORS], BEHAVIOR_COLUMNS)
        impressions = from_ipc(parts[IMPRESSIONS], IMPRESSION_COLUMNS)
        return [consume(bucket, group_bucket(behaviors, impressions, plan))]

    return build
