"""`uic load-test`: how fast the service answers at a rate that it cannot slow down."""

from typing import Annotated

import typer

from uic.jobs.config.context import (
    DEFAULT_WORKSPACE,
    ERR,
    OUT,
    ConfigOption,
    WorkspaceOption,
    open_context,
)


def register(root: typer.Typer) -> None:
    """Add this command to the command line."""
    root.command("load-test")(load_test)


def load_test(
    *,
    url: Annotated[str | None, typer.Option(help="Of the service; default: serve.port.")] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(min=0.1, help="Requests a second; may be repeated, one run each."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each run, after its warm-up.")] = 10.0,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds before, not counted.")] = 2.0,
    candidates: Annotated[int, typer.Option(min=1, help="Items a request.")] = 200,
    connections: Annotated[int, typer.Option(min=1, help="Open at once, at most.")] = 128,
    distinct: Annotated[int, typer.Option(min=1, help="Distinct requests, sent in turn.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the draw of users and candidates.")] = 0,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Send requests at a fixed rate, and print latencies as JSON; a plot goes to the reports.

    Users and candidates are drawn from the log's impressions. Latency counts from the moment at
    which a request was due, so a server that is slow cannot slow the load down. Ends with status 2
    if a request failed.
    """
    import json

    from uic.jobs.serving.load.generator import LoadPlan, run_load
    from uic.jobs.serving.load.report import draw, report_of
    from uic.jobs.serving.load.targets import bodies_from_log
    from uic.models.errors import BadInputError

    context = open_context(workspace, config)
    settings = context.config.serve
    bodies = bodies_from_log(context.log, distinct, candidates, seed)
    target = url or f"http://{settings.host}:{settings.port}"
    results = []
    for one in rate or [50.0, 100.0, 200.0]:
        plan = LoadPlan(
            url=target,
            bodies=bodies,
            rate=one,
            seconds=seconds,
            token=None if settings.token is None else settings.token.get_secret_value(),
            connections=connections,
            warm_up_seconds=warm_up,
        )
        with ERR.status(f"{one:g} requests a second for {warm_up + seconds:g} s"):
            results.append(run_load(plan))
        ERR.print(str(results[-1].summary()), markup=False)
    report = {"url": target, "candidates": candidates, **report_of(results)}
    picture = context.reports / "load-test.png"
    draw(report, picture, f"{candidates} candidates a request")
    OUT.print(json.dumps(report), markup=False)
    ERR.print(f"plot: {picture}", markup=False)
    failed = sum(result.failed for result in results)
    if failed:
        msg = f"{target}: {failed} requests failed; see `statuses` above and the service's log"
        raise BadInputError(msg)
