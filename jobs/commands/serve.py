"""`uic serve`: the ranking service, and its reload."""

from typing import Annotated

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT
from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context
from uic.models.errors import BadInputError

app = typer.Typer(
    invoke_without_command=True,
    help="Rank candidates over HTTP with the memories of the store.",
)


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="serve")


@app.callback()
def serve(
    command: typer.Context,
    *,
    bundle: Annotated[
        str | None,
        typer.Option(
            help="A path, MODEL/VERSION, or MODEL to follow its current version; default: mimn."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With --history-from log: din, dicm, lmn, …")
    ] = None,
    history_from: Annotated[
        str,
        typer.Option(
            help="store: memories. log: compute interest in the request from the last 1,000 events "
            "(view user_sequence), to compare with."
        ),
    ] = "store",
    prerank_bundle: Annotated[
        str | None,
        typer.Option(
            help="A bundle of prerank, named as in --bundle: adds POST /v1/prerank and "
            "POST /v1/funnel."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address; default: serve.host.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="0 takes a free one; default: serve.port.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; default: serve.workers.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Serve until SIGTERM: POST /v1/rank, and OpenAPI at /docs.

    Listens on loopback unless told otherwise, and answers on while the store is away: such
    answers, and those for unknown users or items, say `degraded` and why. A bundle that becomes
    the model's current one is loaded, warmed, and swapped without a failed request.
    """
    if command.invoked_subcommand is not None:
        return
    context = open_context(workspace, config)
    settings = context.config.serve

    if history_from not in ("store", "log"):
        msg = f"--history-from {history_from}: expected store or log"
        raise BadInputError(msg)

    from uic.jobs.serving.http.server import ServeRequest, listen
    from uic.jobs.serving.http.server import serve as run

    request = ServeRequest(
        str(workspace),
        None if config is None else str(config),
        bundle or model or "mimn",
        history_from,
        prerank_bundle or "",
    )
    listener = listen(host or settings.host, settings.port if port is None else port)
    address, taken = listener.getsockname()[:2]
    if settings.token is None and not address.startswith("127.") and address != "::1":
        ERR.print(f"listening on {address} without a token: set UIC_SERVE__TOKEN", markup=False)
    OUT.print(f"serving {request.bundle} at http://{address}:{taken}", markup=False)
    run(request, listener, workers or settings.workers)


@app.command()
def reload(
    *,
    bundle: Annotated[
        str | None,
        typer.Option(help="MODEL/VERSION to make the model's current one; default: as it is."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Of the service; default: serve.port.")] = None,
    wait_seconds: Annotated[float, typer.Option(min=0, help="Until it must be served.")] = 60.0,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Make a bundle the current one and wait until the running service serves it.

    The service sees a new current version by itself; this command only waits and says so, and
    ends with status 2 if the bundle is not served in time.
    """
    context = open_context(workspace, config)

    from uic.jobs.serving.follow.reloading import reload_service

    settings = context.config.serve
    token = settings.token
    label = reload_service(
        context.bundles,
        bundle,
        url or f"http://{settings.host}:{settings.port}",
        None if token is None else token.get_secret_value(),
        wait_seconds,
    )
    OUT.print(f"served: {label}", markup=False)
