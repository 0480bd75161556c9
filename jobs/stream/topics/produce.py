"""Producers: how behaviour events get into a topic, or into event files.

Two settings matter to a user who writes a producer of their own (`PRODUCER_SETTINGS`):

* `enable.idempotence`: a retry of the client neither doubles nor re-orders events.
* `partitioner`: all events of a user must be in one partition, whichever producer sends
  them. The key is the user id in decimal digits, and the partitioner is Java's default, murmur2.
  librdkafka's own default (CRC32) would put the same user elsewhere, so clients built on it
  (Python, Go, C#, Node) must set `murmur2_random`.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from numpy.typing import NDArray

from uic.jobs.stream.topics.brokers import Brokers, Setting
from uic.jobs.stream.topics.event_files import LoggedPayload, scan_folder, write_event_file
from uic.jobs.stream.topics.kafka_link import Link, NoBrokerError
from uic.jobs.stream.topics.kafka_topic import describe_topic
from uic.models.errors import UicError
from uic.models.hashing import stable_hash
from uic.models.records.positions import SHOWN
from uic.pipelines.log.columns import wire_columns
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.schemas import BEHAVIORS

PRODUCER_SETTINGS: Final[dict[str, Setting]] = {
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "acks": "all",
    "linger.ms": 5,
    "compression.type": "lz4",
}
_FLUSH_SECONDS: Final = 60.0
_BATCH_EVENTS: Final = 5000


class DeliveryError(UicError):
    """The broker did not take an event."""


@dataclass(frozen=True)
class Outgoing:
    """Payloads to send, in log order.

    Args:
        payloads: JSON events.
        user_ids: (payloads,), int64, the keys.
        log_times_ms: (payloads,), int64; used by files, a broker stamps its own.
    """

    payloads: list[bytes]
    user_ids: NDArray[np.int64]
    log_times_ms: NDArray[np.int64]


def log_payloads(log: EventLog, *, now: bool) -> Iterator[Outgoing]:
    """The behaviours of an event log as payloads, file after file.

    Args:
        log: to send.
        now: give every event the present time as event time: a broker's log time is now, and the
            parser refuses events that are older than `max_event_age_days`.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 - only this source reads Parquet

    epochs = log.epochs()
    for file in log.behavior_files():
        noted = epochs[(file.epoch or 1) - 1].columns
        for batch in pq.ParquetFile(file.path).iter_batches(_BATCH_EVENTS):
            columns = [batch[name] for name in ("user_id", "item_id", "category_id")]
            ids = np.stack([column.to_numpy() for column in columns], axis=1)
            codes = batch["behavior"]
            names = codes.dictionary.to_pylist() if hasattr(codes, "dictionary") else BEHAVIORS
            indices = codes.indices.to_numpy() if hasattr(codes, "indices") else codes.to_numpy()
            times = batch["event_time"].to_numpy().view(np.int64)
            if now:
                times = np.full(len(times), int(time.time() * 1000), dtype=np.int64)
            yield Outgoing(
                payloads=[
                    payload_of(user, item, category, names[code], when, columns=further)
                    for (user, item, category), code, when, further in zip(
                        ids.tolist(),
                        indices.tolist(),
                        times.tolist(),
                        wire_columns([one.column for one in noted], batch),
                        strict=True,
                    )
                ],
                user_ids=ids[:, 0],
                log_times_ms=batch["log_time"].to_numpy().view(np.int64),
            )


def simulated_payloads(users: int, days: int, seed: int, *, now: bool) -> Iterator[Outgoing]:
    """Behaviours of the simulator; `now` as in `log_payloads`."""
    from uic.pipelines.simulator.generator import Simulation  # noqa: PLC0415
    from uic.pipelines.simulator.plan import SimulationPlan  # noqa: PLC0415

    plan = SimulationPlan.of(users=users, items=max(2000, users // 2), days=days, seed=seed)
    for batch in Simulation(plan).payload_batches():
        payloads = batch.payloads
        if now:
            time_ms = b"%d}" % int(time.time() * 1000)
            # The simulator writes the event time last.
            payloads = [text[: text.rindex(b":") + 1] + time_ms for text in payloads]
        yield Outgoing(payloads, batch.user_ids, batch.log_times_ms)


def payload_of(
    user: int,
    item: int,
    category: int,
    behavior: str,
    time_ms: int,
    *,
    source: str | None = None,
    columns: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """One event on the wire.

    Args:
        user: id.
        item: id.
        category: id.
        behavior: its name.
        time_ms: event time, milliseconds since 1970 UTC.
        source: which producer sent it; None for not said.
        columns: what it has beside ids, by field.
    """
    document = {
        "user_id": user,
        "item_id": item,
        "category_id": category,
        "behavior": behavior,
        "event_time": time_ms,
        **columns,
    }
    return msgspec.json.encode(document if source is None else document | {"source": source})


def shown_payload(
    user: int,
    items: Sequence[int],
    categories: Sequence[int],
    request: int | str,
    time_ms: int,
    *,
    columns: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """One list of shown items on the wire.

    Args:
        user: id.
        items: ids, in the order in which they were shown.
        categories: theirs.
        request: its id; a sample takes all of a request or none.
        time_ms: when they were shown, milliseconds since 1970 UTC.
        columns: what it has beside ids, by field: a value for all, or a list with one an item.
    """
    return msgspec.json.encode(
        {
            "user_id": user,
            "behavior": SHOWN,
            "request_id": request,
            "event_time": time_ms,
            "item_ids": items,
            "category_ids": categories,
            **columns,
        }
    )


@dataclass
class Pace:
    """Holds a sender to a rate.

    Args:
        events_per_second: 0 for as fast as it goes.
        limit: events in all; None for no limit.
    """

    events_per_second: float = 0.0
    limit: int | None = None
    sent: int = 0
    _began: float | None = None

    def next_share(self, wanted: int) -> int:
        """How many of `wanted` events may go now; waits until at least one may. 0 at the limit."""
        if self.limit is not None:
            wanted = min(wanted, self.limit - self.sent)
        if wanted <= 0 or not self.events_per_second:
            return max(0, wanted)
        now = time.monotonic()
        began = self._began = now if self._began is None else self._began
        due = int((now - began) * self.events_per_second) + 1 - self.sent
        if due <= 0:
            time.sleep(-due / self.events_per_second + 0.001)
            return min(wanted, 1)
        return min(wanted, due)


def send_to_kafka(
    batches: Iterable[Outgoing],
    brokers: Brokers,
    topic: str,
    pace: Pace,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Send events keyed by user, until the source or the pace's limit ends; how many.

    Raises:
        NoBrokerError: none answers.
        BrokerAccessError: the broker does not let us in.
        TopicError: no such topic.
        DeliveryError: the broker refused an event, or did not take all in time.
    """
    describe_topic(brokers, topic)
    producer = Link(brokers).producer(PRODUCER_SETTINGS)
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        del message
        if error is not None:
            failed.append(error)

    for batch in batches:
        at = 0
        keys = [str(user) for user in batch.user_ids.tolist()]
        while at < len(keys):
            share = pace.next_share(len(keys) - at)
            if not share:
                break
            for row in range(at, at + share):
                _produce(producer, topic, keys[row], batch.payloads[row], delivered)
            producer.poll(0)
            at += share
            pace.sent += share
            progress(share)
            if failed:
                break
        if failed or (pace.limit is not None and pace.sent >= pace.limit):
            break
    if producer.flush(_FLUSH_SECONDS) or failed:
        reason = failed[0].str() if failed else f"not all delivered in {_FLUSH_SECONDS:.0f} s"
        msg = f"{brokers}: topic {topic}: {reason}"
        raise DeliveryError(msg)
    return pace.sent


def _produce(
    producer: Producer,
    topic: str,
    key: str,
    payload: bytes,
    delivered: Callable[[KafkaError | None, Message], None],
) -> None:
    while True:
        try:
            producer.produce(topic, key=key, value=payload, on_delivery=delivered)
        except BufferError:
            producer.poll(0.05)  # the client's queue is full: let some go out
        except KafkaException as error:
            raise NoBrokerError(str(error)) from error
        else:
            return


def write_files(
    batches: Iterable[Outgoing],
    folder: Path,
    partitions: int,
    limit: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write events as one more file of each partition; how many events.

    The partition is `stable_hash(user) % partitions`, offsets go on after the files that are
    there, and log times are those of the events.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = scan_folder(folder)
    rows: list[list[LoggedPayload]] = [[] for _ in range(partitions)]
    following = [
        there[partition][-1].last + 1 if partition in there else 0
        for partition in range(partitions)
    ]
    sent = 0
    for batch in batches:
        count = len(batch.payloads) if limit is None else min(len(batch.payloads), limit - sent)
        homes = (stable_hash(batch.user_ids) % np.uint64(partitions)).tolist()
        for row in range(count):
            home = homes[row]
            rows[home].append(
                LoggedPayload(
                    batch.payloads[row],
                    home,
                    following[home] + len(rows[home]),
                    int(batch.log_times_ms[row]),
                )
            )
        sent += count
        progress(count)
        if limit is not None and sent >= limit:
            break
    for partition, own in enumerate(rows):
        if own:
            name = f"partition={partition:05d}-{own[0].offset:020d}.jsonl.gz"
            write_event_file(folder / name, own)
    return sent
