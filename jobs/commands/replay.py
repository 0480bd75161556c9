"""`uic replay`: live through a past day again, event by event and impression by impression."""

from datetime import datetime
from typing import Annotated

import typer

from uic.jobs.commands.options import (
    DAY_FORMATS,
    YesOption,
    confirm,
    shown_progress,
    takes_workspace,
)
from uic.jobs.config.console import OUT
from uic.jobs.workspace.workspace import Workspace

app = typer.Typer(
    no_args_is_help=True,
    help="Live through a past day again: its events streamed, its impressions ranked on time.",
)
UrlOption = Annotated[
    str | None, typer.Option(help="Of the ranking service; default: serve.port on loopback.")
]
ToOption = Annotated[
    str, typer.Option(help="Where events go: files, or kafka (the topic of the settings).")
]
StretchesOption = Annotated[
    int, typer.Option(min=2, help="The day in so many pieces; a memory is at most one behind.")
]


@app.command("hold-back")
@takes_workspace
def hold_back(
    day: Annotated[datetime, typer.Argument(formats=DAY_FORMATS, help="The day to live again.")],
    *,
    workspace: Workspace,
) -> None:
    """Take the behaviours of DAY and later out of an imported log, and keep them for the replay.

    What is left is the log as it was at midnight; impressions stay where they are.
    """
    held = workspace.replay.hold_back(day.date())
    later = f", and {held.later:,} of later days" if held.later else ""
    OUT.print(f"{held.events:,} behaviours of {held.day} held back{later}", markup=False)
    OUT.print("`uic replay undo` puts them back")


@app.command()
@takes_workspace
def reset(*, yes: YesOption = False, workspace: Workspace) -> None:
    """Make the workspace as it was before its replay, to live through the day once more.

    Stops the embedded Redis and removes its data, the streamed events, and the epochs of the log
    after the import's. Snapshots and models stay, and the day stays held back. Says what goes and
    asks; refuses where no day is held back.
    """
    plan = workspace.replay.plan_reset()
    confirm(plan.lines(), yes=yes)
    plan.carry_out()
    for what in plan.lines():
        OUT.print(f"removed {what}", markup=False)


@app.command()
@takes_workspace
def undo(*, yes: YesOption = False, workspace: Workspace) -> None:
    """Put the held day and later ones back into the log, and end the replay.

    What the replay left is removed first, as `uic replay reset` does.
    """
    plan = workspace.replay.plan_reset()
    confirm(plan.lines(), yes=yes)
    plan.carry_out()
    OUT.print(f"{workspace.replay.undo():,} behaviours are in the log again")


@app.command()
@takes_workspace
def begin(
    *,
    url: UrlOption = None,
    stretches: StretchesOption = 48,
    to: ToOption = "files",
    workspace: Workspace,
) -> None:
    """Rank the day with the memories of midnight, and write its first events, before it streams."""
    events = workspace.replay.begin(url=url, stretches=stretches, to=to)
    OUT.print(f"{events:,} events of the first stretch are in the source of the stream")


@app.command()
@takes_workspace
def run(
    *,
    url: UrlOption = None,
    stretches: StretchesOption = 48,
    to: ToOption = "files",
    workspace: Workspace,
) -> None:
    """Let the day happen: append its events, rank each impression with the memory of its moment.

    Needs `uic replay begin`, a running `uic stream run --source files` (or kafka) and a running
    `uic serve`. A Kafka broker stamps events with the time of now: set log.max_event_age_days so
    that they are not refused as too old.
    Writes WORKSPACE/replay/replay.json: AUC with live memories, with midnight's and with none,
    latency of the requests, and how long events took from the source into the store. Answers that
    had to do without something are counted by its reason.
    """
    with shown_progress() as progress:
        report = workspace.replay.run(url=url, stretches=stretches, to=to, progress=progress)
    for name, metrics in report["memory"].items():
        OUT.print(f"AUC {metrics['auc']:.4f}, GAUC {metrics['gauc']:.4f} with {name} memory")
    for reason, count in report["degraded"].items():
        text = f"degraded: {count:,} of {report['impressions']:,} answers: {reason}"
        OUT.print(text, markup=False)
    latency, fresh = report["latency_ms"], report["freshness_seconds"]
    OUT.print(
        f"latency p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms; an event is in the "
        f"store after {fresh['p50']:.2f} s (p50), {fresh['p99']:.2f} s (p99)"
    )
