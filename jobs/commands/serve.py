"""`uic serve`: the ranking service, and its reload."""

from typing import Annotated

import typer

from uic.jobs.commands import completion
from uic.jobs.commands.options import takes_workspace
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace

app = typer.Typer(
    invoke_without_command=True,
    help="Rank candidates over HTTP with the memories of the store.",
)
BundleOption = Annotated[
    str,
    typer.Option(
        help="A path, MODEL/VERSION, or MODEL to follow its current version.",
        autocompletion=completion.bundles,
    ),
]
HistoryFromOption = Annotated[
    str,
    typer.Option(
        help="store: memories. log: compute interest in the request from the last 1,000 events "
        "(view user_sequence), with --bundle din, dicm, lmn, …, to compare with."
    ),
]
PrerankBundleOption = Annotated[
    str | None,
    typer.Option(
        help="A bundle of prerank, as in --bundle: adds POST /v1/prerank and POST /v1/funnel.",
        autocompletion=completion.bundles,
    ),
]
PortOption = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="0 takes a free one; default: serve.port.")
]


@app.callback()
@takes_workspace
def serve(
    command: typer.Context,
    *,
    bundle: BundleOption = "mimn",
    history_from: HistoryFromOption = "store",
    prerank_bundle: PrerankBundleOption = None,
    host: Annotated[str | None, typer.Option(help="Address; default: serve.host.")] = None,
    port: PortOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; default: serve.workers.")
    ] = None,
    workspace: Workspace,
) -> None:
    """Serve until SIGTERM: POST /v1/rank, and OpenAPI at /docs.

    Listens on loopback unless told otherwise, and answers on while the store is away: such
    answers, and those for unknown users or items, say `degraded` and why. A bundle that becomes
    the model's current one is loaded, warmed, and swapped without a failed request.

    Says where it listens at once, and "ready" when it ranks; without its bundle it ends with
    status 2.
    """
    if command.invoked_subcommand is not None:
        return

    def listening(address: str, port: int) -> None:
        token = workspace.config.serve.token
        if token is None and not address.startswith("127.") and address != "::1":
            ERR.print(f"listening on {address} without a token: set UIC_SERVE__TOKEN", markup=False)
        where = f"http://{address}:{port}"
        OUT.print(f"loading {bundle}; /readyz answers 200 when it ranks: {where}", markup=False)

    workspace.serve(
        bundle, history_from=history_from, prerank_bundle=prerank_bundle, host=host, port=port,
        workers=workers, listening=listening,
        ready=lambda: OUT.print("ready: it ranks", markup=False),
    )  # fmt: skip


@app.command()
@takes_workspace
def reload(
    *,
    bundle: Annotated[
        str | None,
        typer.Option(help="MODEL/VERSION to make the model's current one; default: as it is."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Of the service; default: serve.port.")] = None,
    wait_seconds: Annotated[float, typer.Option(min=0, help="Until it must be served.")] = 60.0,
    workspace: Workspace,
) -> None:
    """Make a bundle the current one and wait until the running service serves it.

    The service sees a new current version by itself; this command only waits and says so, and
    ends with status 2 if the bundle is not served in time.
    """
    label = workspace.reload(bundle, url=url, wait_seconds=wait_seconds)
    OUT.print(f"served: {label}", markup=False)
