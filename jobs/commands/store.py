"""`uic store`: the embedded Redis of a workspace, and histories from the log in it."""

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import OUT, progress_display
from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context

app = typer.Typer(
    no_args_is_help=True,
    help="Start, stop and look at the embedded Redis (for machines that have none of their own), "
    "and fill the view user_sequence.",
)


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="store")


@app.command()
def start(workspace: WorkspaceOption = DEFAULT_WORKSPACE, config: ConfigOption = None) -> None:
    """Start Redis on loopback, every write synced to disk; it outlives this command.

    Its data and its address are in WORKSPACE/store; a start after a stop or a crash has them
    again. Does nothing when it runs already.
    """
    from uic.feature_repo.store.connection import STORE_FOLDER
    from uic.feature_repo.store.server import EmbeddedRedis

    context = open_context(workspace, config)
    running = EmbeddedRedis(context.workspace / STORE_FOLDER).start()
    OUT.print(f"redis-server at {running.address} (process {running.pid})", markup=False)


@app.command()
def stop(workspace: WorkspaceOption = DEFAULT_WORKSPACE, config: ConfigOption = None) -> None:
    """Stop the embedded Redis; what it holds stays on disk."""
    from uic.feature_repo.store.connection import STORE_FOLDER
    from uic.feature_repo.store.server import EmbeddedRedis

    context = open_context(workspace, config)
    stopped = EmbeddedRedis(context.workspace / STORE_FOLDER).stop()
    OUT.print("stopped" if stopped else "was not running")


@app.command()
def status(workspace: WorkspaceOption = DEFAULT_WORKSPACE, config: ConfigOption = None) -> None:
    """Print the store's address, memory, durability and number of keys.

    Ends with status 2 if Redis does not answer, or would lose memories when it is full.
    """
    from uic.feature_repo.store.connection import connect, refuse_eviction, resolve_address
    from uic.feature_repo.store.errors import typed_errors

    context = open_context(workspace, config)
    address = resolve_address(context.config.store, context.workspace)
    with connect(address) as client, typed_errors(str(address)):
        refuse_eviction(client, str(address))
        info = client.info()
        synced = client.config_get("appendfsync").get("appendfsync", "unknown")
        keys = client.dbsize()
    log = f"append-only file, sync {synced}" if info["aof_enabled"] else "no append-only file"
    OUT.print(f"address     {address}", markup=False)
    OUT.print(f"redis       {info['redis_version']}, {info['role']}, {log}", markup=False)
    OUT.print(f"keys        {keys:,}")
    OUT.print(f"memory      {info['used_memory'] / 2**20:,.1f} MiB")


@app.command()
def sequences(workspace: WorkspaceOption = DEFAULT_WORKSPACE, config: ConfigOption = None) -> None:
    """Write the last 1,000 events of every user from the log (view user_sequence).

    For rankers that read a history (`uic serve --history-from log`, `--prerank-bundle`). Run it
    before the stream keeps histories (`stream.sequences`): one that the stream has begun stays as
    it is. It can be repeated. Users who were forgotten on request are left out.
    """
    from uic.jobs.stream.fold.sequence_fill import fill_from_log
    from uic.pipelines.log.event_log import EventLog

    context = open_context(workspace, config)
    with progress_display() as progress:
        task = progress.add_task("users", total=None)
        written = fill_from_log(
            EventLog(context.log),
            context.config.store,
            context.workspace,
            lambda done: progress.update(task, completed=done),
        )
    OUT.print(f"sequences of {written:,} users are in the store")
