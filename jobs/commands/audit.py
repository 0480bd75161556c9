"""`uic audit`: whether the memories that are served are what the log says."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from uic.jobs.commands.options import shown_progress, takes_workspace
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from uic.pipelines.audit.report import GenerationAudit, ServedAudit

SampleRateOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Share of users; default: audit.sample_rate. 1 = all."),
]


BrokerOption = Annotated[
    bool,
    typer.Option(
        "--with-broker/--without-broker",
        help="Ask the broker whether the topic is still the log's, and where it ends.",
    ),
]


@takes_workspace
def audit(
    *,
    sample_rate: SampleRateOption = None,
    generation: Annotated[
        int | None, typer.Option(min=1, help="Only this one; default: ready, live and retired.")
    ] = None,
    broker: BrokerOption = True,
    workspace: Workspace,
) -> None:
    """Fold the log again, user by user, and hold the served memories against it.

    Users are taken by a hash of their id. Each one's log is folded up to the position that the
    served memory carries, and compared byte for byte, some through Feast's own API. A stream job
    may run meanwhile: its archive is read behind the log, and for the last seconds the audit waits.

    matched: the same bytes. within tolerance: folded on another type of machine. differing: other
    numbers or header. behind: later events of the user lie at or before a marker. missing: the log
    has a user whom the store has not. extra: the store has one whom the log has not, or who was
    forgotten. ahead: neither log nor archive has the memory's position, so it was not judged.
    not passed: offsets that have streamed and that no marker has passed; of the live generation
    they say that the store was put back to an older copy, or that nothing streams into it.
    What the service has written down (serve.log_features) is folded and scored again, too.

    Writes WORKSPACE/reports/audit.json. Exit status 3 if anything is differing, behind, missing,
    extra or ahead, if the live generation's markers are behind, if the log has a position twice, if
    the topic is another one than the log's or cannot be asked, or if no user was compared.
    """
    with shown_progress() as progress:
        done = workspace.audit(
            sample_rate=sample_rate, generation=generation, ask_broker=broker, progress=progress
        )
    OUT.print(_table(done.generations))
    for epoch, partition, first, last in done.generations[0].losses:
        OUT.print(f"epoch {epoch}, partition {partition}: {first} to {last} are lost, as accepted")
    if done.served is not None:
        OUT.print(_served(done.served))
    if done.topic is not None:
        OUT.print(done.topic.said, markup=False)
    ERR.print(f"written to {done.report}", markup=False)
    done.require_no_mismatch()


def _served(served: "ServedAudit") -> str:
    features = served.features
    beside = (
        ""
        if features is None or not features.rows
        else (
            f"\nfeatures served: {features.matched:,} of {features.rows:,} rows are the tables', "
            f"{features.late:,} an earlier one, {features.pushed:,} pushed, "
            f"{features.missing:,} missing, {features.differing:,} differ"
        )
    )
    return (
        f"served: {served.matched:,} of {served.memories:,} memories of {served.answers:,} "
        f"answers are the log's ({served.ahead:,} ahead of it); {served.scored:,} "
        f"probabilities differ by {served.largest_difference:.2g} at most{beside}"
    )


def _table(audits: "list[GenerationAudit]") -> Table:
    """A column a generation."""
    from uic.pipelines.audit.compare import Verdict

    table = Table(box=SIMPLE_HEAD)
    table.add_column("generation")
    for audit in audits:
        table.add_column(f"{audit.number} ({audit.state})", justify="right")
    table.add_row("users", *(f"{audit.users:,}" for audit in audits))
    table.add_row("  through Feast", *(f"{audit.through_feast:,}" for audit in audits))
    table.add_row("events folded", *(f"{audit.events:,}" for audit in audits))
    for verdict in Verdict:
        name = verdict.name.lower().replace("_", " ")
        table.add_row(name, *(f"{audit.counts[verdict]:,}" for audit in audits))
    table.add_row("not passed", *(f"{audit.unpassed:,}" for audit in audits))
    table.add_row("largest difference", *(f"{audit.largest_difference:g}" for audit in audits))
    return table
