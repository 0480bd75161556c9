"""A10: what the world does to `uic stream run`: what may pass is waited for, the rest ends it."""

import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from uic.feature_repo.store.errors import StoreFullError, typed_errors
from uic.jobs.drills.hostile.row import HostileRow, require
from uic.jobs.drills.hostile.stage import HostileStage
from uic.jobs.drills.trial import start_trial, trial_context
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import StreamFailedError, Supervisor
from uic.jobs.stream.topics.event_files import LoggedPayload, write_event_file
from uic.models.errors import ManifestError

_WRITE: Final = "return redis.call('set', KEYS[1], 'x')"


@contextmanager
def quiet_stream(folder: Path) -> Iterator[Planner]:
    """A stream with one event that is folded already, so that a run ends at once."""
    write_event_file(folder / "events" / "0.jsonl.gz", [LoggedPayload(b"{}", 0, 0, 5)])
    context = trial_context(
        folder,
        {"source": "files", "files": folder / "events", "attempts": 3, "backoff_seconds": 0.01},
    )
    server, _ = start_trial(context)
    try:
        planner = Planner(context, RunOptions(until_end=True))
        planner.client.hset(planner.keys.markers(1), "1:0", "0")
        yield planner
    finally:
        server.stop()


def run_mended(planner: Planner, mend: Callable[[], object]) -> list[str]:
    """What a run says; `mend` puts the fault right after the first failed attempt."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("attempt 1 failed"):
            mend()

    Supervisor(planner, say).run()
    return said


def _waits(stage: HostileStage) -> str:
    with quiet_stream(stage.new_folder("quiet")) as planner:
        seen = [_disk(planner), _read_only(planner, mended=True), _full(planner)]
        seen.append(_damaged(planner))
    return "; ".join(seen)


def _disk(planner: Planner) -> str:
    """No file may grow, as on a full disk: the system refuses each write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        said = run_mended(planner, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return _waited(said, "File too large", "a disk that takes nothing")


def _read_only(planner: Planner, *, mended: bool) -> str:
    """A fail-over: the address leads to what is a replica now."""
    planner.client.replicaof("127.0.0.1", "1")
    back = (lambda: planner.client.replicaof("NO", "ONE")) if mended else (lambda: None)
    try:
        said = run_mended(planner, back)
    except StreamFailedError as error:
        require(held=False, seen=str(error))
        raise
    return _waited(said, "Redis takes no writes", "a read-only Redis")


def _waited(said: Sequence[str], reason: str, what: str) -> str:
    require(said[0].startswith("attempt 1 failed") and reason in said[0], f"{what}: {said[0]}")
    require(said[-1].startswith("attempt 2 finished"), f"{what}: {said[-1]}")
    return f"{what}: waited for"


def _full(planner: Planner) -> str:
    """A write that Redis has no room for."""
    planner.client.config_set("maxmemory", "1")
    try:
        with typed_errors("the drill"):
            planner.client.eval(_WRITE, 1, "key")
    except StoreFullError as error:
        require(error.passing, "a full Redis counts as permanent")
    else:
        require(held=False, seen="a full Redis took a write")
    finally:
        planner.client.config_set("maxmemory", "0")
    return "a full Redis: may pass"


def _damaged(planner: Planner) -> str:
    """One byte of the weights."""
    weights = planner.context.bundles / "mimn" / "untrained" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    said: list[str] = []
    try:
        Supervisor(planner, said.append).run()
    except ManifestError as error:
        require("sha256 is" in str(error) and not said, f"{said}, then {error}")
        return "a damaged bundle: ended at once"
    require(held=False, seen=f"a damaged bundle was streamed with: {said}")
    raise AssertionError


def _waits_control(stage: HostileStage) -> str:
    """A Redis that stays read-only."""
    with quiet_stream(stage.new_folder("quiet-control")) as planner:
        return _read_only(planner, mended=False)


ROWS: Final[Sequence[HostileRow]] = (
    HostileRow(
        "A10",
        "a stream's disk takes nothing, its Redis is read-only or full, its bundle is damaged",
        "what may pass is waited for, what cannot be mended ends the run at once",
        _waits,
        _waits_control,
    ),
)
