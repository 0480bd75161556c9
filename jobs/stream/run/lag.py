"""How many events of the source wait to be folded, also those that no stream of the epoch reads.

Users of a topic that grows move between partitions, so a stream reads the partitions of its epoch
and ends when there are others. What producers send to the new ones meanwhile waits as well, and so
does all of a topic that was made anew: both are lag, whether a stream runs or not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from uic.jobs.stream.run.planner import Planner
from uic.jobs.stream.topics.brokers import brokers_of
from uic.jobs.stream.topics.event_files import scan_folder
from uic.jobs.stream.topics.kafka_positions import events_ahead
from uic.jobs.stream.topics.kafka_topic import Topic, describe_topic
from uic.models.errors import UicError
from uic.pipelines.log.event_log import Epoch, EventLog


@dataclass(frozen=True)
class SourceLag:
    """Events that wait.

    Attributes:
        behind: by partition of the epoch, events after the store's marker. On a transactional topic
            commits and aborted events between them count, too; where no event waits, it is 0.
        unread: by partition, events that no stream of the epoch reads.
        why: they are not read; empty where everything is.
    """

    behind: Mapping[int, int]
    unread: Mapping[int, int]
    why: str = ""

    @property
    def events(self) -> int:
        """All of them."""
        return sum(self.behind.values()) + sum(self.unread.values())


def lag_of(planner: Planner, generation: int) -> SourceLag:
    """What waits for a generation.

    Raises:
        UicError: the store or the source does not answer.
    """
    marks = planner.generations.markers(generation)
    epochs = EventLog(planner.context.log).epochs()
    if planner.stream.source == "files":
        return _of_files(planner, marks, epochs)
    stream = planner.stream
    topic = describe_topic(brokers_of(stream), stream.topic)
    unread, why = unread_of(topic, epochs)
    epoch = topic.epoch_in(epochs)
    if epoch is None:
        return SourceLag({}, unread, why)
    after = _after(marks, epoch, topic.end)
    ahead = events_ahead(brokers_of(stream), topic.name, after, topic.end, gaps=stream.offset_gaps)
    behind = {partition: topic.end[partition] - at for partition, at in ahead.items()}
    return SourceLag(behind, unread, why)


def unread_of(topic: Topic, epochs: Sequence[Epoch]) -> tuple[dict[int, int], str]:
    """By partition, events that no stream of the topic's epoch reads, and why not.

    Args:
        topic: as the broker describes it.
        epochs: of the log.
    """
    held = {partition: end - topic.first[partition] for partition, end in topic.end.items()}
    epoch = topic.epoch_in(epochs)
    if epoch is None:
        before = topic.epoch_before(epochs)
        if before is None:
            return held, f"topic {topic.name} is no epoch of the log yet"
        return held, (
            f"topic {topic.name} was made anew since epoch {before.number}; `uic stream run "
            "--new-epoch` goes on with the new one"
        )
    if topic.partitions == epoch.partitions:
        return {}, ""
    unread = {partition: held[partition] for partition in held if partition >= epoch.partitions}
    return unread, (
        f"topic {topic.name} has {topic.partitions} partitions, epoch {epoch.number} has "
        f"{epoch.partitions}: users have moved between partitions; a log with other partitions "
        "needs a topic of its own"
    )


def lag_lines(planner: Planner, generation: int) -> Iterator[str]:
    """Events that wait in each partition, and those that are not read, for people."""
    try:
        lag = lag_of(planner, generation)
    except UicError as error:
        yield f"lag         unknown: {error}"
        return
    each = [f"{partition}: {events:,}" for partition, events in lag.behind.items()]
    each += [f"{partition}: {events:,} (not read)" for partition, events in lag.unread.items()]
    yield f"lag         {lag.events:,} events" + (": " + ", ".join(each) if each else "")
    if lag.why:
        partitions = ", ".join(map(str, lag.unread)) or "none"
        yield (
            f"not read    {sum(lag.unread.values()):,} events (partitions {partitions}): {lag.why}"
        )


def lag_page(generation: int, lag: SourceLag) -> str:
    """The lag as Prometheus reads it."""
    lines = [
        "# HELP uic_stream_lag_events Events that wait to be folded; partitions=new are not read.",
        "# TYPE uic_stream_lag_events gauge",
    ]
    for name, events in (("read", lag.behind), ("new", lag.unread)):
        labels = f'generation="{generation}",partitions="{name}"'
        lines.append(f"uic_stream_lag_events{{{labels}}} {sum(events.values())}")
    return "\n".join(lines) + "\n"


def _of_files(
    planner: Planner, marks: Mapping[int, Mapping[int, int]], epochs: Sequence[Epoch]
) -> SourceLag:
    files = scan_folder(planner.event_folder)
    ends = {partition: own[-1].last + 1 for partition, own in files.items()}
    epoch = planner.file_epoch(epochs)
    if epoch is None:
        unread = {partition: ends[partition] - own[0].first for partition, own in files.items()}
        return SourceLag({}, unread, f"{planner.event_folder} is no epoch of the log yet")
    after = _after(marks, epoch, ends)
    behind = {partition: max(0, ends[partition] - at) for partition, at in after.items()}
    unread = {
        partition: ends[partition] - own[0].first
        for partition, own in files.items()
        if partition >= epoch.partitions
    }
    why = f"epoch {epoch.number} has {epoch.partitions} partitions" if unread else ""
    return SourceLag(behind, unread, why)


def _after(
    marks: Mapping[int, Mapping[int, int]], epoch: Epoch, ends: Mapping[int, int]
) -> dict[int, int]:
    """By partition that is there, the offset after the last event that is folded."""
    folded = marks.get(epoch.number, {})
    return {
        partition: folded.get(partition, first - 1) + 1
        for partition, first in sorted(epoch.first_offsets.items())
        if partition in ends
    }
