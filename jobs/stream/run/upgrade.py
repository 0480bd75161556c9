"""`uic memories upgrade`: gives every user a memory of a new bundle, without a pause.

1. Build a snapshot of the whole log with the new bundle, as the next generation; exact parts that
   both bundles declare alike are taken over (`uic.pipelines.memories.take_over`).
2. Load it beside the live one.
3. Stream the new generation too, until it is nearly where the live one is. It has a job of its
   own, so the live one is not slowed.
4. Switch readers to it.
5. Stop the old generation's stream. The old memories stay until `uic memories drop`.

Each step is looked up in the workspace and the store before it is done, so a run that was cut off
goes on where it was.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from uic.feature_repo.snapshots.published_values import load_values, point_live_to
from uic.feature_repo.snapshots.snapshots import Snapshot, list_snapshots
from uic.feature_repo.store.generation import State
from uic.feature_repo.store.opened import OpenedStore, open_for_writing
from uic.feature_repo.store.tombstones import Tombstones
from uic.jobs.config.context import Context
from uic.jobs.stream.run.detached import start_stream, stream_folder
from uic.jobs.stream.run.lag import lag_of
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import running
from uic.models.bundles.bundle import load_bundle
from uic.models.errors import BadInputError, UicError
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.memories.build import MemoriesRequest, build_memories

_LOOK_SECONDS: Final = 2.0


class CatchUpError(UicError):
    """The new generation did not catch up; nothing was switched."""


@dataclass(frozen=True)
class CatchUp:
    """When readers may turn to a new generation.

    Args:
        max_lag_events: how far it may be behind the log then.
        seconds: how long catching up may take.
    """

    max_lag_events: int = 1000
    seconds: float = 24 * 3600.0


@dataclass(frozen=True)
class UpgradeOptions:
    """What the command line says.

    Args:
        bundle: directory of the new bundle.
        catch_up: when readers may turn.
    """

    bundle: Path
    catch_up: CatchUp = field(default_factory=CatchUp)


def upgrade(context: Context, options: UpgradeOptions, say: Callable[[str], None]) -> int:
    """Run all steps; the number of the generation that is live then.

    Raises:
        CatchUpError: the new generation's stream ended, or was too slow.
        UicError: whatever a step has against it; the live generation stays as it is.
    """
    with open_for_writing(context.config.store, context.workspace) as store:
        old = store.generations.live()
        if store.generations.get(old).bundle == load_bundle(options.bundle).hash8:
            msg = f"{options.bundle}: generation {old}, which is live, is of this bundle already"
            raise BadInputError(msg)
        # Step 1
        snapshot = _built(context, store, options, say)
        take_over(context, store, snapshot, options.catch_up, say)
        return snapshot.generation


def take_over(
    context: Context,
    store: OpenedStore,
    snapshot: Snapshot,
    catch_up: CatchUp,
    say: Callable[[str], None],
) -> None:
    """Steps 2 to 5: a snapshot's generation becomes the live one, without a pause.

    Raises:
        CatchUpError: the new generation's stream ended, or was too slow; nothing was switched.
    """
    old, new = store.generations.live(), snapshot.generation
    # Step 2
    _loaded(store, snapshot, say)
    # Step 3
    streams = running(stream_folder(context, old)) is not None
    if streams:
        _caught_up(context, new, catch_up, say)
    else:
        say(f"generation {old} does not stream, so there is nothing to catch up with")
    # Step 4
    seconds = store.generations.switch(new, context.config.store.switch_delay_seconds)
    point_live_to(context.memories, new)
    say(f"generation {new} is live in {seconds:.1f} s")
    time.sleep(seconds)
    # Step 5
    found = running(stream_folder(context, old)) if streams else None
    if found is not None:
        os.kill(found["pid"], signal.SIGTERM)
        say(f"the stream of generation {old} stops; that of {new} goes on")


def _built(
    context: Context, store: OpenedStore, options: UpgradeOptions, say: Callable[[str], None]
) -> Snapshot:
    """The newest snapshot of this bundle that is not of a retired generation, or a new one."""
    wanted = load_bundle(options.bundle).hash8
    known = {found.number: found.state for found in store.generations.all()}
    for snapshot in sorted(list_snapshots(context.memories), key=lambda found: -found.generation):
        usable = known.get(snapshot.generation, State.LOADING) in (State.LOADING, State.READY)
        if snapshot.bundle == wanted and usable:
            say(f"snapshot {snapshot.name} is built already")
            return snapshot
    files = EventLog(context.log).behavior_files()
    if not files:
        msg = f"{context.log}: no events to build memories from"
        raise BadInputError(msg)
    until = max(file.dt for file in files)
    say(f"building memories of the log until {until}")
    return build_memories(
        MemoriesRequest(
            log=context.log,
            memories=context.memories,
            bundle=options.bundle,
            until=until,
            time_zone=context.config.time_zone,
            memories_settings=context.config.memories,
            sale=context.config.sale,
            start=None,
            days=None,
            rules=(),
            generation=max([*known, *_numbers(context)], default=0) + 1,
            forgotten=tuple(Tombstones(context.workspace).ids().tolist()),
        ),
        "DirectRunner",
        [],
    )


def _numbers(context: Context) -> list[int]:
    return [snapshot.generation for snapshot in list_snapshots(context.memories)]


def _loaded(store: OpenedStore, snapshot: Snapshot, say: Callable[[str], None]) -> None:
    known = {found.number: found.state for found in store.generations.all()}
    if known.get(snapshot.generation) is State.READY:
        say(f"generation {snapshot.generation} is loaded already")
        return
    say(f"loading {snapshot.rows:,} memories as generation {snapshot.generation}")
    load_values(snapshot, store.memories, store.generations)


def _caught_up(context: Context, new: int, catch_up: CatchUp, say: Callable[[str], None]) -> None:
    """Stream the new generation until its lag is below the bound."""
    folder = stream_folder(context, new)
    process = None if running(folder) else start_stream(context, new)
    planner = Planner(context, RunOptions(generation=new))
    said = 0.0
    until = time.monotonic() + catch_up.seconds
    while time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
        if process is not None and process.poll() is not None:
            msg = (
                f"generation {new}: its stream ended before it had caught up; "
                f"{folder / 'supervisor.log'} says why; run the upgrade again to go on"
            )
            raise CatchUpError(msg)
        found = running(folder)
        if found is None:
            continue
        lag = lag_of(planner, new).events
        if lag <= catch_up.max_lag_events:
            say(f"generation {new} is {lag:,} events behind the log")
            return
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"generation {new} catches up: {lag:,} events to go")
    msg = f"generation {new} had not caught up after {catch_up.seconds:.0f} s"
    raise CatchUpError(msg)
