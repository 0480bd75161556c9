"""The demo: a list of stages, each one plain `uic` command that anyone could type.

Every stage is printed, run as a process of its own, and logged; so the demo is the tutorial, and
what works in it works by hand. A stage that fails is named with its log and the command that goes
on from there. The workspace belongs to the demo (it keeps `demo.stages.json`), which is how a rerun
may empty it, and why any other folder is left alone.

Whatever a stage leaves running (Redis, the stream, the service) is ended when the demo ends, also
by a failure or by Ctrl-C.
"""

import json
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from uic.jobs.demo.processes import Runner
from uic.jobs.demo.stages import DemoStage, Plan
from uic.models.errors import BadInputError
from uic.models.published import write_json_atomically

STATE_NAME: Final = "demo.stages.json"
# Room for the log, samples, memories, the store and the installed environment's temporary files.
NEEDED_DISK_BYTES: Final = 2 * 2**30
NEEDED_MEMORY_BYTES: Final = 3 * 2**30


def run_plan(
    plan: Plan, workspace: Path, start: str | None, say: Callable[[str], None]
) -> dict[str, float]:
    """Run the stages from `start` (None: all, in an emptied workspace).

    Returns:
        Seconds of each stage that ran.

    Raises:
        BadInputError: no such stage, an earlier stage has not run, the workspace is not the
            demo's, or disk or memory are too small.
        StageFailedError: a stage ended with an exit status other than 0.
    """
    state = _open_workspace(workspace, fresh=start is None)
    if start is not None and state.get("data", plan.data) != plan.data:
        msg = f"{workspace}: its demo was of {state['data']}, this is {plan.data}; as then, or anew"
        raise BadInputError(msg)
    first = 0 if start is None else _first_stage(plan, start, state["done"], workspace)
    names = [stage.name for stage in plan.stages]
    if start is not None and names[first] != start:
        say(f"--from {start}: goes on from {names[first]}, with an empty store")
    seconds: dict[str, float] = state["seconds"]
    with ExitStack() as stack:
        runner = Runner(plan, workspace, stack, say)
        if start is not None:
            _put_in_order(plan.stages[first:], runner, workspace)
        for number, stage in enumerate(plan.stages, start=1):
            if number <= first and not stage.again:
                continue
            words = stage.command(workspace)
            say(f"[{number}/{len(names)}] {stage.name}: {stage.purpose}")
            say(f"$ uic {shlex.join(words)}{' &' if stage.background else ''}")
            started = time.monotonic()
            runner.run(stage, words)
            if number > first:
                seconds[stage.name] = round(time.monotonic() - started, 2)
                write_json_atomically(
                    workspace / STATE_NAME,
                    {"done": names[:number], "seconds": seconds, "data": plan.data},
                )
    return {name: seconds[name] for name in names[first:]}


def _first_stage(plan: Plan, start: str, done: list[str], workspace: Path) -> int:
    """Place of the stage to go on from; all before it must have run."""
    names = [stage.name for stage in plan.stages]
    if start not in names:
        msg = f"--from {start}: no such stage; stages are {', '.join(names)}"
        raise BadInputError(msg)
    first = names.index(start)
    while (other := plan.stages[first].resume_from) is not None:
        # What has streamed cannot be streamed again into the same store.
        first = names.index(other)
    missing = [name for name in names[:first] if name not in done]
    if missing:
        msg = f"--from {start}: stage {missing[0]} has not run in {workspace}; start from it"
        raise BadInputError(msg)
    return first


def _put_in_order(stages: Sequence[DemoStage], runner: Runner, workspace: Path) -> None:
    """Remove what an earlier run of these stages has left."""
    for stage in stages:
        for command in stage.before:
            runner.run_quietly(command)
        for name in stage.removes:
            if (workspace / name).is_file():
                (workspace / name).unlink()
            shutil.rmtree(workspace / name, ignore_errors=True)


def _open_workspace(workspace: Path, *, fresh: bool) -> dict[str, Any]:
    """The stages that ran in a workspace of the demo; a fresh start empties it."""
    path = workspace / STATE_NAME
    if workspace.exists() and any(workspace.iterdir()) and not path.exists():
        msg = (
            f"{workspace}: holds data that no demo made; "
            "name another folder with --workspace, or remove it"
        )
        raise BadInputError(msg)
    if fresh and workspace.exists():
        shutil.rmtree(workspace)
    workspace.mkdir(parents=True, exist_ok=True)
    _refuse_small_machine(workspace)
    empty: dict[str, Any] = {"done": [], "seconds": {}}
    if fresh:
        write_json_atomically(path, empty)
        return empty
    return empty | json.loads(path.read_text(encoding="utf-8")) if path.exists() else empty


def _refuse_small_machine(workspace: Path) -> None:
    import psutil  # noqa: PLC0415 - only here

    free = shutil.disk_usage(workspace).free
    if free < NEEDED_DISK_BYTES:
        msg = (
            f"{workspace}: {free / 2**30:.1f} GiB free, the demo needs "
            f"{NEEDED_DISK_BYTES / 2**30:.0f} GiB; name another folder with --workspace"
        )
        raise BadInputError(msg)
    memory = psutil.virtual_memory().available
    if memory < NEEDED_MEMORY_BYTES:
        msg = (
            f"{memory / 2**30:.1f} GiB of memory are free, the demo needs "
            f"{NEEDED_MEMORY_BYTES / 2**30:.0f} GiB; end other programs"
        )
        raise BadInputError(msg)


__all__ = ["STATE_NAME", "DemoStage", "Plan", "run_plan"]
