"""`uic audit`: whether the memories that are served are what the log says."""

from typing import Annotated

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT, progress_display
from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context


def register(root: typer.Typer) -> None:
    """Add `audit` to the command line."""
    root.command()(audit)


def audit(
    *,
    sample_rate: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of users; default: audit.sample_rate. 1 = all."),
    ] = None,
    generation: Annotated[
        int | None, typer.Option(min=1, help="Only this one; default: ready, live and retired.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Fold the log again, user by user, and hold the served memories against it.

    Users are taken by a hash of their id. Each one's log is folded from nothing up to the position
    that the served memory carries, and compared byte for byte: some users through Feast's own API,
    the others read in bulk. A stream job may run meanwhile; memories whose position the log does
    not have yet are counted as ahead and not judged (`uic log compact` brings the log up to date).

    matched: the same bytes. within tolerance: folded on another type of machine. differing: other
    numbers or header. behind: later events of the user lie at or before a marker. missing: the log
    has a user whom the store has not. extra: the store has one whom the log has not, or who was
    forgotten.

    If the service has written down what it scored with (serve.log_features), those memories are
    folded again too, and their candidates scored again by the model as it was trained.

    Writes WORKSPACE/reports/audit.json. Exit status 3 if anything is differing, behind, missing or
    extra.
    """
    from uic.jobs.checks.audit import REPORT_NAME, audit_table, run_audit, run_served_audit
    from uic.models.errors import BadInputError
    from uic.models.published import write_json_atomically
    from uic.pipelines.audit.report import require_no_mismatch

    context = open_context(workspace, config)
    settings = context.config.audit
    if sample_rate is not None:
        if sample_rate == 0:
            msg = "--sample-rate 0: nobody would be audited; expected more than 0, up to 1"
            raise BadInputError(msg)
        settings = settings.model_copy(update={"sample_rate": sample_rate})
    with progress_display() as display:
        tasks: dict[int, object] = {}

        def progress(number: int, done: int, total: int) -> None:
            if number not in tasks:
                tasks[number] = display.add_task(f"generation {number}: log rows", total=total)
            display.update(tasks[number], completed=done)  # type: ignore[arg-type]

        audits = run_audit(context, settings, generation, progress)
    OUT.print(audit_table(audits))
    with ERR.status("holding what was served against the log"):
        served = run_served_audit(context, settings)
    if served is not None:
        OUT.print(
            f"served: {served.matched:,} of {served.memories:,} memories of {served.answers:,} "
            f"answers are the log's ({served.ahead:,} ahead of it); {served.scored:,} "
            f"probabilities differ by {served.largest_difference:.2g} at most"
        )
    path = context.reports / REPORT_NAME
    write_json_atomically(
        path,
        {
            "sample_rate": settings.sample_rate,
            "generations": [found.to_json() for found in audits],
            "served": None if served is None else served.to_json(),
        },
    )
    ERR.print(f"written to {path}", markup=False)
    require_no_mismatch(audits, served)
