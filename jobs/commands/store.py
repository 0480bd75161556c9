"""`uic store`: the embedded Redis of a workspace, whose store it is, and histories in it."""

from typing import Annotated

import typer

from uic.jobs.commands.options import YesOption, confirm, shown_progress, takes_workspace
from uic.jobs.config.console import OUT
from uic.jobs.workspace.workspace import Workspace

app = typer.Typer(
    no_args_is_help=True,
    help="Start, stop and look at the embedded Redis (for machines that have none of their own), "
    "take a store over, and fill the view user_sequence.",
)


@app.command()
@takes_workspace
def start(*, workspace: Workspace) -> None:
    """Start Redis on a private socket, every write synced to disk; it outlives this command.

    Its data and its address are in WORKSPACE/store; a start after a stop or a crash has them
    again. Does nothing when it runs already.
    """
    running = workspace.store.start()
    OUT.print(f"redis-server at {running.address} (process {running.pid})", markup=False)


@app.command()
@takes_workspace
def stop(*, workspace: Workspace) -> None:
    """Stop the embedded Redis; what it holds stays on disk."""
    OUT.print("stopped" if workspace.store.stop() else "was not running")


@app.command()
@takes_workspace
def status(*, workspace: Workspace) -> None:
    """Print the store's address, memory, durability and number of keys.

    Ends with status 2 if Redis does not answer, or would lose memories when it is full.
    """
    found = workspace.store.status()
    if found.used_bytes is None:
        OUT.print(f"address     {found.address}", markup=False)
        OUT.print("redis       unknown: this user may not run INFO")
        OUT.print(f"keys        {found.keys:,}")
        return
    log = "no append-only file" if found.sync is None else f"append-only file, sync {found.sync}"
    OUT.print(f"address     {found.address}", markup=False)
    OUT.print(f"redis       {found.redis_version}, {found.role}, {log}", markup=False)
    OUT.print(f"keys        {found.keys:,}")
    OUT.print(f"memory      {found.used_bytes / 2**20:,.1f} MiB")


@app.command()
@takes_workspace
def adopt(
    *,
    without_its_log: Annotated[
        bool,
        typer.Option(
            "--without-its-log",
            help="Even if the live generation has folded another log; it cannot stream from here.",
        ),
    ] = False,
    yes: YesOption = False,
    workspace: Workspace,
) -> None:
    """Take a store over that another workspace has written into; what is in it stays.

    For a backup that was put back on another machine, or a copy that takes the original's place.
    The other workspace can read on, and its stream ends. Users who were forgotten there are
    forgotten here. Refuses a store whose live generation has folded another log than this one.
    """
    found = workspace.store.adoption(without_its_log=without_its_log)
    for line in found.holds:
        OUT.print(line, markup=False)
    if found.forgotten:
        OUT.print(f"{found.forgotten:,} users who were forgotten there, and not yet here")
    confirm([f"the claim of {found.other}"] if found.other else [], yes=yes)
    workspace.store.adopt()
    OUT.print(f"project {found.project} at {found.address} is this workspace's", markup=False)


@app.command()
@takes_workspace
def sequences(*, workspace: Workspace) -> None:
    """Write the last 1,000 events of every user from the log (view user_sequence).

    For rankers that read a history (`uic serve --history-from log`, `--prerank-bundle`). Run it
    before the stream keeps histories (`stream.sequences`): one that the stream has begun stays as
    it is. It can be repeated. Users who were forgotten on request are left out.
    """
    with shown_progress() as progress:
        written = workspace.store.fill_sequences(progress=progress)
    OUT.print(f"sequences of {written:,} users are in the store")
