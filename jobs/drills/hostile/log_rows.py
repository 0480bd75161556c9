"""A5, A6, A18 and A19: what the log makes of a clock, retention and compactions gone wrong."""

import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from uic.jobs.config.context import Context
from uic.jobs.drills.hostile.row import HostileRow, require
from uic.jobs.drills.hostile.stage import HostileStage, on_target
from uic.jobs.drills.hostile.target import AttackTarget
from uic.jobs.stream.fold.counters import PARTITION_MOVED
from uic.jobs.stream.letters.compact import ArchiveGapError, new_rows
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.topics.event_files import LoggedPayload, line_of, write_event_file
from uic.models.errors import UicError
from uic.pipelines.log.epochs import EpochHandOverError
from uic.pipelines.log.writer import LogWriter, Part

_EVENTS: Final = 40
_STEP_BACK_MS: Final = 2_000
_OLD_SECONDS: Final = 400 * 86_400


def _step_back(target: AttackTarget) -> None:
    """Stream events whose stamps fall by two seconds in the middle, and compact them."""
    half = _EVENTS // 2
    stamps = [at * 100 - (_STEP_BACK_MS if at >= half else 0) for at in range(_EVENTS)]
    epoch = target.register_topic()
    target.stream(epoch, target.clicks(0, stamps))
    target.workspace.compact(target.day.date())


def _clock(stage: HostileStage) -> str:
    """A5."""
    with stage.target("clock") as target:
        _step_back(target)
        return f"{_log_times(target)}; {target.require_right()}"


def _clock_control(stage: HostileStage) -> str:
    """The same with one bit of a memory turned: an audit that judges nothing would not say."""
    with stage.target("clock-control") as target:
        _step_back(target)
        record = target.memory(target.users[0])
        assert record is not None  # noqa: S101 - of the snapshot
        record[0, -1] ^= 1
        target.put(target.users[0], record.tobytes())
        return target.require_right()


def _log_times(target: AttackTarget) -> str:
    """The log has every event of the topic, and its log time never falls."""
    table = _streamed(target).sort_by("offset")
    times = table["log_time"].cast(pa.int64()).to_pylist()
    require(len(times) == _EVENTS, f"{len(times)} of {_EVENTS} events are in the log")
    require(times == sorted(times), f"log times fall: {times}")
    return f"{len(times)} events compacted, log time is the largest so far"


def _streamed(target: AttackTarget) -> pa.Table:
    """What the log has of topics."""
    epochs = {epoch.number for epoch in target.log.epochs() if epoch.kind == "topic"}
    files = [file.path for file in target.log.behavior_files() if file.epoch in epochs]
    columns = ["partition", "offset", "log_time", "user_id"]
    empty = pa.table({name: [] for name in columns})
    return pa.concat_tables([pq.read_table(path, columns=columns) for path in files] or [empty])


def _with_files(target: AttackTarget, folder_rows: Sequence[LoggedPayload]) -> Context:
    """The target's context with these events as the source of its stream."""
    folder = target.path / "events"
    write_event_file(folder / "0.jsonl.gz", folder_rows)
    config = target.workspace.config
    stream = config.stream.model_copy(update={"source": "files", "files": folder, "parallelism": 1})
    return Context(target.path, config.model_copy(update={"stream": stream}), None)


def _eaten(target: AttackTarget, options: RunOptions) -> tuple[int, str]:
    """Retention eats 10 of 40 events that were registered, not folded; plan with `options`.

    Returns:
        The epoch, and where the next attempt starts.
    """
    rows = target.clicks(0, range(_EVENTS))
    Planner(_with_files(target, rows), RunOptions()).plan(1, 1)  # registers the epoch
    epoch = target.log.epochs()[-1].number
    context = _with_files(target, rows[10:])
    plan, _ = Planner(context, options).plan(1, 2)
    target.stream(epoch, rows[10:])
    return epoch, f"starts at {plan.starts[0]}"


def _loss(stage: HostileStage) -> str:
    """A6."""
    with stage.target("loss") as target:
        try:
            _eaten(target, RunOptions())
        except UicError as error:
            refused = "retention has left" in str(error)
            require(refused, f"refused with: {error}")
        else:
            require(held=False, seen="the stream went on without being told to")
    with stage.target("loss-accepted") as target:
        epoch, starts = _eaten(target, RunOptions(accept_loss=True))
        (done,) = target.workspace.compact(target.day.date())
        losses = target.log.epochs()[epoch - 1].losses
        require(losses == ((0, 0, 9),), f"noted losses: {losses}")
        return (
            f"refused without --accept-loss; with it {starts}, 0 to 9 noted in epochs.json, "
            f"{done.publication.behaviors} events compacted; {target.require_right()}"
        )


def _loss_control(stage: HostileStage) -> None:
    """The same hole, and nothing noted of it."""
    with stage.target("loss-control") as target:
        epoch = target.register_topic()
        target.archive(epoch, target.clicks(10, range(30)))
        try:
            target.workspace.compact(target.day.date())
        except ArchiveGapError as error:
            require(held=False, seen=str(error))


def _twice(stage: HostileStage) -> str:
    """A18: a compaction that looked at the log before another published the same."""
    with stage.target("compactions") as target:
        rows = target.clicks(0, range(_EVENTS))
        number = target.register_topic()
        target.archive(number, rows)
        _refused_letter(target, number, rows[-1])
        (looked_at,) = (epoch for epoch in target.log.epochs() if epoch.number == number)
        target.workspace.compact(target.day.date())
        try:
            with LogWriter(target.log, Part("late"), time_zone="UTC", topic=looked_at) as writer:
                end_ms = int(target.day.timestamp() * 1000) + 86_400_000
                for table, _ in new_rows(target.workspace.context, target.log, looked_at, end_ms):
                    writer.add_behaviors(table)
                writer.publish()
        except EpochHandOverError:
            late = "the later of two compactions is refused"
        else:
            late = "both compactions published"
        return f"{late}; {_each_once([_streamed(target)], _EVENTS - 1)}"


def _refused_letter(target: AttackTarget, epoch: int, row: LoggedPayload) -> None:
    """The dead letter of an event that the stream refused; Flink has not named its file yet."""
    folder = target.path / "stream" / "dead-letters" / f"epoch={epoch:05d}"
    folder.mkdir(parents=True)
    reason = f',"reason":"{PARTITION_MOVED}","log_epoch":{epoch}}}\n'.encode()
    (folder / ".part-0.inprogress.0a").write_bytes(line_of(row).rstrip(b"}\n") + reason)


def _each_once(tables: Sequence[pa.Table], expected: int) -> str:
    offsets = pa.concat_tables(tables)["offset"].to_pylist()
    seen = f"{len(offsets)} rows at {len(set(offsets))} positions"
    require(len(offsets) == len(set(offsets)) == expected, f"{seen}, expected {expected}")
    return f"{seen}; a letter in progress keeps its event out"


def _twice_control(stage: HostileStage) -> str:
    """What two compactions once made: every row twice."""
    with stage.target("compactions-control") as target:
        target.archive(target.register_topic(), target.clicks(0, range(_EVENTS)))
        target.workspace.compact(target.day.date())
        return _each_once([_streamed(target)] * 2, _EVENTS)


def _pruned_archive(target: AttackTarget, *, lost: bool) -> str:
    """A19: four old files in the log, one old file that is not."""
    number = target.register_topic()
    paths = [target.archive(number, target.clicks(at, range(10))) for at in range(0, 40, 10)]
    target.workspace.compact(target.day.date())
    paths.append(target.archive(number, target.clicks(40, range(10))))
    paths.append(target.archive(number, target.clicks(50, range(10))))
    for path in paths:
        os.utime(path, (time.time() - _OLD_SECONDS,) * 2)
    pruned = target.workspace.stream.prune()
    if lost:
        paths[-2].unlink()
    left = [path.name for path in paths if path.exists()]
    try:
        target.workspace.compact(target.day.date())
    except ArchiveGapError as error:
        require(held=False, seen=str(error))
    table = _streamed(target)
    require(table.num_rows == 60, f"{table.num_rows} of 60 events are in the log")
    require(len(left) == 2, f"left of 6 files: {left}")
    return (
        f"{sum(one.files for one in pruned)} files pruned, {len(left)} that are not in the log stay"
    )


ROWS: Final[Sequence[HostileRow]] = (
    HostileRow(
        "A5",
        "the broker's clock steps back by two seconds in the middle of a partition",
        "stream and compaction go on, log time never falls, the audit judges every user",
        _clock,
        _clock_control,
    ),
    HostileRow(
        "A6",
        "retention eats events that were not folded",
        "refused; with --accept-loss it is noted, and compaction and audit know of it",
        _loss,
        _loss_control,
    ),
    HostileRow(
        "A18",
        "two compactions at once; a refused event whose letter is not written out yet",
        "each event is in the log once, the refused one not at all",
        _twice,
        _twice_control,
    ),
    HostileRow(
        "A19",
        "an archive of old files is pruned",
        "what the log has goes, what it does not have stays and is compacted",
        on_target("archive", partial(_pruned_archive, lost=False)),
        on_target("archive-control", partial(_pruned_archive, lost=True)),
    ),
)
