"""`uic daily`: the day's work in its order, for a scheduler."""

from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands.gate_tables import show_failures
from uic.jobs.commands.options import shown_progress, takes_workspace
from uic.jobs.commands.train import shown_training
from uic.jobs.config.console import OUT
from uic.jobs.workspace.daily import SAMPLES_DAYS
from uic.jobs.workspace.daily_order import STEPS
from uic.jobs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from uic.jobs.workspace.daily_order import DailyStep

UntilOption = Annotated[
    str | None,
    typer.Option(
        metavar="DAY",
        help="Last day of the work, YYYY-MM-DD; default: yesterday, in the time zone of the log.",
    ),
]
OutOption = Annotated[str, typer.Option("--samples", help="Name of the samples that are made.")]
DaysOption = Annotated[int, typer.Option(min=1, help="Days of impressions in the samples.")]
TrainOption = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Train it, from its current bundle if it has one."),
]
RateOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Share of users to audit; default: audit.sample_rate."),
]
SkipOption = Annotated[
    list[str] | None,
    typer.Option(metavar="STEP", help=f"Leave out {', '.join(STEPS)}; may be repeated."),
]


@takes_workspace
def daily(
    *,
    until: UntilOption = None,
    samples: OutOption = "default",
    days: DaysOption = SAMPLES_DAYS,
    train: TrainOption = None,
    audit_rate: RateOption = None,
    skip: SkipOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    workspace: Workspace,
) -> None:
    """Do the day's work in order, as much of it as is not done, and all nights that were missed.

    compact: what streamed becomes part of the log. forget: users who were forgotten leave the
    files. clean: old files of stream and service go. snapshot: one for each night that has none,
    the last memories.snapshots_kept of them. prune: older ones go. audit: what is served.
    check: the log is judged. samples: of the last --days days. train: with --train alone.

    What is done is read from the workspace: a killed run goes on where it was, and a second one
    does nothing again. What compact finds is known when it has run, so after --dry-run there may
    be more to do than it says. Exit status 3 if a gate or the audit failed: after a gate samples
    and training are left out, after an audit the rest is done. 2 is bad input, 1 anything else.
    """

    def say(step: "DailyStep") -> None:
        what = (
            step.said if step.state == "ran" else f"{step.state}{': ' * bool(step.said)}{step.said}"
        )
        OUT.print(f"{step.day}  {step.name:<8}  {what}", markup=False, soft_wrap=True)

    with shown_progress() as progress:
        workspace.daily(
            until, samples=samples, days=days, train=train, audit_rate=audit_rate,
            skip=skip or (), dry_run=dry_run, say=say, judged=show_failures,
            watch=shown_training, progress=progress,
        )  # fmt: skip
