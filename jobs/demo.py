"""The demo: a list of stages, each one plain `uic` command that anyone could type.

Every stage is printed, run as a process of its own, and logged; so the demo is the tutorial, and
what works in it works by hand. A stage that fails is named with its log and the command that goes
on from there. The workspace belongs to the demo (it keeps `demo.stages.json`), which is how a rerun
may empty it, and why any other folder is left alone.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.errors import BadInputError, UicError
from models.published import write_json_atomically

STATE_NAME: Final = "demo.stages.json"
KUAIRAND_FOLDER: Final = "kuairand_pure_14d"
# KuaiRand's 14 days of impressions in its own zone, and the simulator's default last weeks.
KUAIRAND_DAYS: Final = ("2022-04-25", "2022-05-08")
KUAIRAND_ZONE: Final = "Asia/Shanghai"
SIMULATED_DAYS: Final = ("2025-02-25", "2025-03-11")
# Room for the log, samples and the installed environment's temporary files.
NEEDED_DISK_BYTES: Final = 2 * 2**30


class StageFailedError(UicError):
    """A stage of the demo failed; the line names its log and how to go on."""

    exit_code = 1


@dataclass(frozen=True)
class Stage:
    """One step of the demo: `uic` and these arguments."""

    name: str
    purpose: str
    arguments: tuple[str, ...]

    def command(self, workspace: Path) -> list[str]:
        """The arguments with the workspace, as typed after `uic`."""
        return [*self.arguments, "--workspace", str(workspace)]


@dataclass(frozen=True)
class Plan:
    """The stages, and the time zone whose days they cut by."""

    data: str
    time_zone: str
    stages: tuple[Stage, ...]


def make_plan(shared_data: Path) -> Plan:
    """KuaiRand if it is there, else the simulator."""
    folder = shared_data / KUAIRAND_FOLDER
    if folder.is_dir():
        source = Stage("import", "behaviours and impressions", ("import", "kuairand", str(folder)))
        return Plan(f"KuaiRand ({folder})", KUAIRAND_ZONE, _stages(source, KUAIRAND_DAYS))
    source = Stage("import", "behaviours and impressions", ("simulate",))
    return Plan("simulator", "UTC", _stages(source, SIMULATED_DAYS))


def _stages(source: Stage, days: tuple[str, str]) -> tuple[Stage, ...]:
    first, last = days
    return (
        source,
        Stage("gates", "judge the log", ("check",)),
        Stage(
            "samples",
            "group impressions with their history",
            ("samples", "--first", first, "--last", last),
        ),
    )


def run_plan(
    plan: Plan, workspace: Path, start: str | None, say: Callable[[str], None]
) -> dict[str, float]:
    """Run the stages from `start` (None: all, in an emptied workspace).

    Returns:
        Seconds of each stage that ran.

    Raises:
        BadInputError: no such stage, an earlier stage has not run, the workspace is somebody
            else's, or the disk is too full.
        StageFailedError: a stage ended with an exit status other than 0.
    """
    names = [stage.name for stage in plan.stages]
    if start is not None and start not in names:
        msg = f"--from {start}: no such stage; stages are {', '.join(names)}"
        raise BadInputError(msg)
    first = names.index(start) if start else 0
    done = _open_workspace(workspace, fresh=start is None)
    missing = [name for name in names[:first] if name not in done]
    if missing:
        msg = f"--from {start}: stage {missing[0]} has not run in {workspace}; start from it"
        raise BadInputError(msg)
    seconds: dict[str, float] = {}
    for number, stage in enumerate(plan.stages[first:], start=first + 1):
        command = stage.command(workspace)
        say(f"[{number}/{len(names)}] {stage.name}: {stage.purpose}")
        say(f"$ uic {shlex.join(command)}")
        started = time.monotonic()
        _run(stage, command, plan, workspace)
        seconds[stage.name] = time.monotonic() - started
        done = [*names[: number - 1], stage.name]
        write_json_atomically(workspace / STATE_NAME, {"done": done})
    return seconds


def _open_workspace(workspace: Path, *, fresh: bool) -> list[str]:
    """The stages that ran in a workspace of the demo; a fresh start empties it."""
    state = workspace / STATE_NAME
    if workspace.exists() and any(workspace.iterdir()) and not state.exists():
        msg = (
            f"{workspace}: holds data that no demo made; "
            "name another folder with --workspace, or remove it"
        )
        raise BadInputError(msg)
    if fresh and workspace.exists():
        shutil.rmtree(workspace)
    workspace.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(workspace).free
    if free < NEEDED_DISK_BYTES:
        msg = (
            f"{workspace}: {free / 2**30:.1f} GiB free, the demo needs "
            f"{NEEDED_DISK_BYTES / 2**30:.0f} GiB; name another folder with --workspace"
        )
        raise BadInputError(msg)
    if fresh:
        write_json_atomically(state, {"done": []})
        return []
    return list(json.loads(state.read_text(encoding="utf-8"))["done"]) if state.exists() else []


def _run(stage: Stage, command: Sequence[str], plan: Plan, workspace: Path) -> None:
    """Run one stage; its output goes to the terminal and to its log."""
    log = workspace / "logs" / f"{stage.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "UIC_TIME_ZONE": plan.time_zone}
    argv = [sys.executable, "-m", "jobs.cli", *command]
    with (
        log.open("w", encoding="utf-8") as sink,
        subprocess.Popen(  # noqa: S603 - our own command line, without a shell
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        try:
            for line in process.stdout:
                sys.stdout.write(f"    {line}")
                sink.write(line)
        except BaseException:
            # Ctrl-C: the child got it too; never leave it behind.
            process.terminate()
            raise
    if process.returncode:
        msg = (
            f"stage {stage.name} failed with exit status {process.returncode}; log: {log}; "
            f"go on with: uic demo --from {stage.name} --workspace {workspace}"
        )
        raise StageFailedError(msg)
