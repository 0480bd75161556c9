"""`uic samples`: grouped training samples from the event log."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape
from typer.core import TyperCommand

from uic.jobs.commands import completion
from uic.jobs.commands.gate_tables import show_failures
from uic.jobs.commands.next_item_options import with_target_options
from uic.jobs.commands.options import (
    RunnerOption,
    parse_day,
    shown_progress,
    takes_workspace,
)
from uic.jobs.commands.pictures import HtmlOption, show_bars
from uic.jobs.config.console import ERR, OUT, printable, working
from uic.jobs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from uic.pipelines.samples.next_item import NextItemTargets

# The manifest has all days and users; a remark is to be read.
_NAMED_DAYS: Final = 5


FeaturesOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="features.yaml: what is joined to impressions. Default: WORKSPACE/features.yaml if it "
        "is there; none joins nothing.",
    ),
]

StateOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="state.yaml: parts of a record, whose features are joined. Default: "
        "WORKSPACE/state.yaml if it is there; none joins nothing.",
    ),
]
OutOption = Annotated[str, typer.Option(help="Name of the samples: a folder of WORKSPACE/samples.")]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A label of the log that stands beside the click. Repeatable. Default: samples.labels "
        "of the settings.",
    ),
]

FirstOption = Annotated[str, typer.Option(help="First day of impressions, YYYY-MM-DD.")]
LastOption = Annotated[str, typer.Option(help="Last day of impressions, YYYY-MM-DD, included.")]
GatesOption = Annotated[
    bool, typer.Option(help="Judge the log before and the samples after; see `uic check`.")
]


@takes_workspace
@with_target_options
def samples(
    arguments: typer.Context,
    *,
    first: FirstOption,
    last: LastOption,
    out: OutOption = "default",
    features: FeaturesOption = None,
    state: StateOption = None,
    label: LabelOption = None,
    next_item: "NextItemTargets | None",
    runner: RunnerOption = "DirectRunner",
    gates: GatesOption = True,
    workspace: Workspace,
) -> None:
    """Group each user's impressions of a day with the history that they share.

    Reads the event log, writes WORKSPACE/samples/NAME, published whole or not at all: readers
    keep the old version until then. Behaviours are read once, however many days. Window, cap, cut
    and the guard against machines are in the section `samples` of the settings, sale days in
    `sale`. A failed gate publishes nothing (exit status 3). `uic samples show NAME` draws samples.

    What follows `--` goes to Beam: `-- --flink_master=host:8081`. Workers share the workspace.
    """
    days = parse_day(first, "--first"), parse_day(last, "--last")
    _say_what_is_replaced(workspace, out, days)
    with shown_progress() as progress:
        made = workspace.samples(
            *days,
            out,
            features=features,
            state=state,
            labels=label,
            next_item=next_item,
            gates=gates,
            judged=show_failures,
            runner=runner,
            beam_arguments=arguments.args,
            progress=progress,
        )
    _tell(workspace, made.manifest, made.path)


def _tell(workspace: Workspace, manifest: dict[str, Any], path: Path) -> None:
    _remark(workspace, manifest)
    OUT.print("\n".join([*_summary(manifest), f"samples: {path}"]), markup=False)
    _warn_of_window(workspace, manifest)


def _warn_of_window(workspace: Workspace, manifest: dict[str, Any]) -> None:
    """Say what lies before the window of the first day, as no history has it."""
    from uic.pipelines.log.event_log import EventLog
    from uic.pipelines.log.older import older_events

    days = manifest["settings"]["window_days"]
    begin = date.fromisoformat(manifest["first"]) - timedelta(days=days)
    older = older_events(EventLog(workspace.context.log), begin)
    if older.events:
        ERR.print(
            f"remark: {older}, before {begin}, are in no history: the window is {days} days; "
            "samples.window_days takes more",
            markup=False,
        )


def _say_what_is_replaced(workspace: Workspace, out: str, days: tuple[date, date]) -> None:
    path = workspace.context.samples / out / "manifest.json"
    if not path.is_file():
        return
    manifest = json.loads(path.read_text(encoding="utf-8"))
    before = (manifest["first"], manifest["last"])
    if before != tuple(day.isoformat() for day in days):
        ERR.print(f"replacing samples {out}, which are of {' to '.join(before)}", markup=False)


def _remark(workspace: Workspace, manifest: dict[str, Any]) -> None:
    """What a person should know before training on it, on standard error."""
    if manifest["empty_days"]:
        days = ", ".join(manifest["empty_days"][:_NAMED_DAYS])
        more = len(manifest["empty_days"]) - _NAMED_DAYS
        days += f" and {more} more days" if more > 0 else ""
        ERR.print(f"[yellow]no impressions on {days}: these days have no samples[/]")
    left_out = manifest["left_out"]
    if left_out["inhuman_users"]:
        limit = manifest["settings"]["max_events_per_day"]
        said = workspace.ids.said("user", left_out["inhuman_user_ids"])
        ids = ", ".join(printable(str(user)) for user in said)
        ERR.print(
            f"[yellow]{left_out['inhuman_users']:,} users with more than {limit:,} behaviours in "
            f"one day left out, with {left_out['inhuman_impressions']:,} impressions: {escape(ids)}"
            f"{', …' if left_out['inhuman_users'] > len(left_out['inhuman_user_ids']) else ''}[/]"
        )


def _summary(manifest: dict[str, Any]) -> list[str]:
    grouping, left_out = manifest["grouping"], manifest["left_out"]
    sale = (
        f"{left_out['sale_day_behaviors']:,} behaviours, "
        f"{left_out['sale_day_impressions']:,} impressions"
    )
    machines = (
        f"{left_out['inhuman_users']:,} users, {left_out['inhuman_impressions']:,} impressions"
    )
    single = (
        f"{grouping['one_row_per_impression_bytes']:,} with one row per impression, "
        f"{grouping['ratio']:.1f} times as many "
        f"(estimated: {grouping['sampled_groups']:,} groups encoded both ways)"
    )
    coverage = [
        f"feature              {key}: {share:.1%} of impressions have a value"
        for key, share in manifest.get("feature_coverage", {}).items()
    ]
    coverage += [
        f"label                {name}: known of {shares['known']:.1%} of impressions, true of "
        f"{shares['true']:.2%} of those"
        for name, shares in manifest.get("label_shares", {}).items()
    ]
    return [
        f"days                 {manifest['first']} to {manifest['last']}",
        f"behaviours read      {manifest['read']['behaviors']:,}",
        f"impressions          {manifest['impressions']:,} in {manifest['groups']:,} groups",
        *_of_targets(left_out.get("targets")),
        f"left out, sale days  {sale}",
        f"left out, machines   {machines}",
        f"bytes                {grouping['bytes']:,} grouped",
        f"                     {single}",
        *coverage,
    ]


def _of_targets(counts: dict[str, int] | None) -> list[str]:
    if counts is None:
        return []
    left_out = (
        f"{counts['too_few_events']:,} with too few events before, {counts['no_negative']:,} "
        f"without a negative of their time, {counts['late']:,} that the log took on a later day"
    )
    return [f"targets              {counts['found']:,}; left out: {left_out}"]


@takes_workspace
def show(
    name: Annotated[
        str, typer.Argument(help="Name of the samples.", autocompletion=completion.samples)
    ] = "default",
    *,
    html: HtmlOption = None,
    workspace: Workspace,
) -> None:
    """Draw samples: impressions and click rate a day, lengths of histories, items' skew.

    Bars of plain characters; --html writes the same as a page that needs no network.
    """
    from uic.jobs.report.profiles import samples_bars
    from uic.jobs.training.run import open_samples
    from uic.pipelines.samples.profile import samples_profile

    with working(f"reading samples {name}"):
        pictures = samples_bars(samples_profile(open_samples(workspace.context, name).root))
    show_bars(f"Samples {name}", pictures, html)


_SHOW: Final = typer.Typer(add_completion=False)
_SHOW.command("show")(show)


class SamplesCommand(TyperCommand):
    """`uic samples`, and `uic samples show`: what follows `--` goes to Beam, so it is no group."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Typer's hook: the context of the command that the first word asks for."""
        if args[:1] == ["show"]:
            command = typer.main.get_command(_SHOW)
            return command.make_context(f"{info_name} show", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)
