"""`uic replay`: live through a past day again, event by event and impression by impression."""

from datetime import datetime
from typing import Annotated

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import OUT, progress_display
from uic.jobs.config.context import DEFAULT_WORKSPACE, Context, open_context

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


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="replay")


@app.command("hold-back")
def hold_back(
    day: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="The day to live again.")],
    *,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Take the behaviours of DAY and later out of an imported log, and keep them for the replay.

    What is left is the log as it was at midnight; impressions stay where they are.
    """
    context = open_context(workspace, config)
    from uic.jobs.replay.hold_back import hold_back as take
    from uic.jobs.replay.run import FOLDER

    held = take(context.log, context.workspace / FOLDER, day.date())
    OUT.print(f"{held.events:,} behaviours of {held.day} held back", markup=False)


@app.command()
def reset(workspace: WorkspaceOption = DEFAULT_WORKSPACE, config: ConfigOption = None) -> None:
    """Make the workspace as it was before its replay, to live through the day once more.

    Stops the embedded Redis and removes its data, the streamed events, and the epochs of the log
    after the import's. Snapshots and models stay.
    """
    context = open_context(workspace, config)
    from uic.feature_repo.store.connection import STORE_FOLDER
    from uic.feature_repo.store.server import EmbeddedRedis
    from uic.jobs.replay.hold_back import forget_replay

    EmbeddedRedis(context.workspace / STORE_FOLDER).stop()
    for what in forget_replay(context.workspace, context.log):
        OUT.print(f"removed {what}", markup=False)


@app.command()
def begin(
    *,
    url: UrlOption = None,
    stretches: StretchesOption = 48,
    to: ToOption = "files",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Rank the day with the memories of midnight, and write its first events, before it streams."""
    context = open_context(workspace, config)
    from uic.jobs.replay.client import RankingClient
    from uic.jobs.replay.destination import destination_of
    from uic.jobs.replay.run import begin as start

    destination = destination_of(context, to)
    client = RankingClient(_url(context, url), _token(context))
    try:
        events = start(context, client, stretches, destination)
    finally:
        client.close()
    OUT.print(f"{events:,} events of the first stretch are in the source of the stream")


@app.command()
def run(
    *,
    url: UrlOption = None,
    stretches: StretchesOption = 48,
    to: ToOption = "files",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Let the day happen: append its events, rank each impression with the memory of its moment.

    Needs `uic replay begin`, a running `uic stream run --source files` (or kafka) and a running
    `uic serve`. A Kafka broker stamps events with the time of now: set log.max_event_age_days so
    that they are not refused as too old.
    Writes WORKSPACE/replay/replay.json: AUC with live memories, with midnight's and with none,
    latency of the requests, and how long events took from the source into the store.
    """
    context = open_context(workspace, config)
    from uic.jobs.replay.client import RankingClient
    from uic.jobs.replay.destination import destination_of
    from uic.jobs.replay.run import run as live

    destination = destination_of(context, to)
    client = RankingClient(_url(context, url), _token(context))
    try:
        with progress_display() as display:
            task = display.add_task("impressions ranked", total=None)
            found = live(
                context,
                client,
                stretches,
                destination,
                lambda done, total: display.update(task, completed=done, total=total),
            )
    finally:
        client.close()
    for name, metrics in found["memory"].items():
        OUT.print(f"AUC {metrics['auc']:.4f}, GAUC {metrics['gauc']:.4f} with {name} memory")
    latency, fresh = found["latency_ms"], found["freshness_seconds"]
    OUT.print(
        f"latency p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms; an event is in the "
        f"store after {fresh['p50']:.2f} s (p50), {fresh['p99']:.2f} s (p99)"
    )


def _url(context: Context, url: str | None) -> str:
    return url or f"http://127.0.0.1:{context.config.serve.port}"


def _token(context: Context) -> str | None:
    token = context.config.serve.token
    return None if token is None else token.get_secret_value()
