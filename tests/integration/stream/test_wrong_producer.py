"""An hour of a producer that partitions another way, and the repair that operations.md gives."""

from datetime import date

import numpy as np
import pytest

from uic.feature_repo.snapshots.published_values import load_values
from uic.feature_repo.store.opened import open_memories
from uic.jobs.config.context import Context
from uic.jobs.drills.log import batch_fold
from uic.jobs.stream.fold.worker import make_fold_function
from uic.jobs.stream.letters.archive import epoch_folder
from uic.jobs.stream.letters.compact import compact
from uic.jobs.stream.letters.topic_reader import read_topic
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.event_files import LoggedPayload, line_of, write_event_file
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.jobs.stream.topics.produce import Outgoing, Pace, payload_of, send_to_kafka
from uic.models.bundles.bundle import load_bundle
from uic.models.hashing import murmur2_partition
from uic.models.memory.fold import MemoryFolder
from uic.pipelines.memories.build import MemoriesRequest, build_memories
from uic.pipelines.memories.exclude import ExcludeRule

DAY_MS = 1_772_323_200_000  # 2026-03-01
DAY = date(2026, 3, 1)
USER, OTHER = 2, 0  # both at home in partition 0 of 2


def _row(user: int, partition: int, offset: int, source: str) -> LoggedPayload:
    time = DAY_MS + 1000 * (10 * partition + offset)
    payload = payload_of(user, offset, 1, "click", time)
    return LoggedPayload(payload[:-1] + f',"source":"{source}"}}'.encode(), partition, offset, time)


def _fold(context: Context, generation: int, rows: list[LoggedPayload]) -> list[str | None]:
    """Write the topic's files anew, and stream what the generation has not."""
    folder = context.config.stream.files
    for partition in (0, 1):
        own = [row for row in rows if row.partition == partition]
        write_event_file(folder / f"{partition}.jsonl.gz", own)
    plan, _ = Planner(context, RunOptions(generation=generation)).plan(generation, 1)
    return make_fold_function(plan)(
        [row.payload for row in rows],
        np.array([row.partition for row in rows], np.int64),
        np.array([row.offset for row in rows], np.int64),
        np.array([row.log_time_ms for row in rows], np.int64),
    )


def _archive(context: Context, name: str, rows: list[LoggedPayload], *refused: int) -> None:
    """What the job leaves behind: the archive, and the letters of the rows at these places."""
    stream = context.workspace / "stream"
    for partition in (0, 1):
        own = [row for row in rows if row.partition == partition]
        path = epoch_folder(stream / "archive", 1) / f"dt={DAY}" / f"part={partition}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(line_of(row) for row in own))
    letters = stream / "dead-letters" / "epoch=00001" / name
    letters.parent.mkdir(parents=True, exist_ok=True)
    end = b',"reason":"partition_moved","log_epoch":1}\n'
    letters.write_bytes(b"".join(line_of(rows[at]).rstrip(b"}\n") + end for at in refused))


def test_users_whom_a_wrong_producer_has_bound_get_their_memories_back(trial, tmp_path):
    files = tmp_path / "events"
    context = trial(source="files", files=files)
    rows = [
        _row(USER, 1, 0, "wrong"),
        _row(OTHER, 0, 0, "right"),
        _row(USER, 0, 1, "right"),
        _row(USER, 0, 2, "right"),
        _row(OTHER, 0, 3, "right"),
    ]
    assert _fold(context, 1, rows) == [None, None, "partition_moved", "partition_moved", None]
    _archive(context, "part-a", rows, 2, 3)
    assert compact(context, DAY)[0].publication.behaviors == 3

    # 1. The partitioner is declared. 2. A generation without that source, beside the live one.
    stream = context.config.stream.model_copy(update={"partitioner": "murmur2"})
    declared = Context(
        context.workspace, context.config.model_copy(update={"stream": stream}), None
    )
    bundle = context.bundles / "mimn" / "untrained"
    snapshot = build_memories(
        MemoriesRequest(
            log=context.log,
            memories=context.memories,
            bundle=bundle,
            until=DAY,
            time_zone="UTC",
            memories_settings=context.config.memories,
            sale=context.config.sale,
            rules=(ExcludeRule(name="wrong producer", sources=("wrong",)),),
            generation=2,
        )
    )
    with open_memories(context.config.store, context.workspace) as store:
        load_values(snapshot, store.memories, store.generations)
        # 3. `uic dead-letters retry`: the letters get places in the users' own partition. Another
        # event of the wrong producer is refused, and no memory is bound to it.
        rows += [_row(USER, 0, 4, "right"), _row(USER, 0, 5, "right"), _row(USER, 1, 1, "wrong")]
        assert _fold(declared, 2, rows)[-3:] == [None, None, "partition_moved"]
        folder = MemoryFolder(load_bundle(bundle), 2)
        expected = batch_fold(iter(rows[5:7]), folder, context.config.log, epoch=1).memories
        records, _ = store.memories.read(2, [USER], folder.record_bytes)
    assert records[0].tobytes() == expected[USER].tobytes()
    _archive(context, "part-b", rows[5:], 2)
    assert compact(declared, DAY)[0].publication.behaviors == 2


def test_the_log_of_a_day_with_a_wrong_producer_is_published(trial, tmp_path):
    """Wrong and retried events in one part of the log would be a user in two partitions."""
    stream = {"source": "files", "files": tmp_path / "events", "partitioner": "murmur2"}
    context = trial(**stream)
    rows = [_row(USER, 1, 0, "wrong"), _row(USER, 0, 0, "right")]
    _fold(context, 1, rows)
    _archive(context, "part-a", rows)  # streamed before the partitioner was declared: no letter
    (done,) = compact(context, DAY)
    assert (done.publication.behaviors, done.rejected) == (1, 1)


@pytest.mark.kafka
def test_producers_place_users_by_murmur2(kafka: KafkaServer):
    kafka.create_topic("placed", 5)
    users = np.array([*range(150), 2**63 - 1, 10**12 + 7])
    payloads = [payload_of(user, 1, 1, "click", DAY_MS) for user in users.tolist()]
    send_to_kafka([Outgoing(payloads, users, users)], Brokers(kafka.brokers), "placed", Pace())
    logged = {row.payload: row.partition for row in read_topic(Brokers(kafka.brokers), "placed", 3)}
    assert [logged[one] for one in payloads] == murmur2_partition(users, 5).tolist()
