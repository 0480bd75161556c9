"""`uic memories`: build snapshots, load them, switch generations, drop them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from uic.jobs.commands import completion
from uic.jobs.commands.options import (
    BEAM_SETTINGS,
    ByFeastOption,
    ExcludeOption,
    RunnerOption,
    YesOption,
    confirm,
    parse_day,
    shown_progress,
    takes_workspace,
)
from uic.jobs.config.console import ERR, OUT, working
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.feature_repo.snapshots.snapshots import Snapshot

app = typer.Typer(
    no_args_is_help=True,
    help="Memories from the event log: build a snapshot, load it as a generation, switch to it.",
)
GenerationArgument = Annotated[
    int,
    typer.Argument(help="Number of the generation.", min=1, autocompletion=completion.generations),
]


BundleOption = Annotated[
    str | None,
    typer.Option(
        help="Bundle that folds: MODEL/VERSION or MODEL of WORKSPACE, or a path; default: that of "
        "--from.",
        autocompletion=completion.bundles,
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Snapshot to start from: generation=NNN/dt=DAY, a path, or latest (of the generation "
        "given, or of the live one).",
    ),
]
DaysOption = Annotated[
    int | None,
    typer.Option(min=1, help="Days of a build from nothing; default: memories.warm_up_days."),
]
GenerationOption = Annotated[
    str | None,
    typer.Option(
        help="Number, or live; default: the snapshot's, or the next.",
        autocompletion=completion.generations,
    ),
]
FromNothingOption = Annotated[
    bool,
    typer.Option(
        "--from-nothing",
        help="Fold exact parts from the log, too, where a snapshot of another bundle has them.",
    ),
]


@app.command(context_settings=BEAM_SETTINGS)
@takes_workspace
def build(
    arguments: typer.Context,
    *,
    bundle: BundleOption = None,
    until: Annotated[str, typer.Option(help="Last day to fold, YYYY-MM-DD, by log time.")],
    start: StartOption = None,
    days: DaysOption = None,
    exclude: ExcludeOption = None,
    generation: GenerationOption = None,
    from_nothing: FromNothingOption = False,
    runner: RunnerOption = "DirectRunner",
    workspace: Workspace,
) -> None:
    """Fold the event log into the memory of every user, in log order, up to and including a day.

    Without --from this is the warm-up; exact parts that a snapshot of another bundle has are taken
    over, where that gives the same bytes. With yesterday's snapshot and the next day it is the
    daily snapshot, and gives the same memories to the bit. With an older, clean snapshot and
    --exclude it is the rebuild after an incident, as a new generation. Sale days are left out as
    the section `sale` of the settings says. What follows `--` goes to Beam.

    --from latest --generation live is the nightly job: it goes on from the newest snapshot of the
    live generation, over all days that were missed since, and has nothing to do if it runs again.
    """
    if from_nothing and start is not None:
        msg = "--from-nothing and --from: a build does either; leave out one"
        raise BadInputError(msg)
    last = parse_day(until, "--until")
    before = [one.name for one in workspace.snapshots()] if start == "latest" else []
    with working(f"folding the log until {last}"):
        snapshot = workspace.build_memories(
            bundle, last, start=start, days=days, exclude=exclude, generation=_number(generation),
            take_over=not from_nothing, runner=runner, beam_arguments=arguments.args,
        )  # fmt: skip
    if snapshot.name in before:
        until = snapshot.manifest["until"]
        OUT.print(f"nothing new: {snapshot.name} holds the log until {until}", markup=False)
    else:
        _describe(snapshot)
        _warn_of_days(workspace, snapshot)


@app.command()
@takes_workspace
def load(
    snapshot: Annotated[
        str | None,
        typer.Argument(help="Snapshot: generation=NNN/dt=DAY, or a path; default: the newest."),
    ] = None,
    *,
    by_feast: ByFeastOption = False,
    workspace: Workspace,
) -> None:
    """Load a snapshot into the store until its generation is ready to switch to.

    Can be repeated and interrupted, beside readers and a stream job: of each user the memory with
    the larger position stays.
    """
    with shown_progress() as progress:
        loaded = workspace.load(snapshot, by_feast=by_feast, progress=progress)
    generation, landed = loaded.generation, loaded.landed
    OUT.print(
        f"generation {generation.number}: {generation.state}, "
        f"{loaded.snapshot.rows:,} users loaded"
        + ("" if landed is None else f", {landed:,} of them newer than what was there"),
        markup=False,
    )


@app.command(name="list")
@takes_workspace
def list_all(*, workspace: Workspace) -> None:
    """Print the generations in the store and the snapshots in the workspace."""
    generations = workspace.generations()
    live = workspace.live_generation()
    OUT.print("generation  state      users      expected   bundle")
    for generation in generations:
        mark = "*" if generation.number == live else " "
        OUT.print(
            f"{generation.number:>9}{mark}  {generation.state:<9}  {generation.rows:<9,}  "
            f"{generation.rows_expected:<9,}  {generation.bundle_name} "
            f"({generation.bundle.hex()})",
            markup=False,
        )
    if not generations:
        OUT.print("(none: the store is empty; load a snapshot)")
    OUT.print("")
    OUT.print("snapshot                       users      events     bundle")
    for snapshot in workspace.snapshots():
        folded = snapshot.manifest["events"]["folded"]
        OUT.print(
            f"{snapshot.name:<29}  {snapshot.rows:<9,}  {folded:<9,}  "
            f"{snapshot.manifest['bundle']} ({snapshot.bundle.hex()})",
            markup=False,
        )


@app.command()
@takes_workspace
def show(generation: GenerationArgument, *, workspace: Workspace) -> None:
    """Print what the store knows of a generation: state, users, positions, what it leaves out."""
    details = workspace.generation(generation)
    found = details.generation
    OUT.print(f"generation    {found.number} ({found.state})", markup=False)
    OUT.print(f"users         {found.rows:,} of {found.rows_expected:,} in its snapshot")
    OUT.print(f"bundle        {found.bundle_name} ({found.bundle.hex()})", markup=False)
    OUT.print(f"memory        {found.record_bytes:,} bytes a user")
    OUT.print(f"snapshot      {found.snapshot}", markup=False)
    OUT.print(f"leaves out    {', '.join(details.leaves_out) or 'nothing'}", markup=False)
    OUT.print(f"forgotten     {details.forgotten:,} users, in every generation")
    for epoch, partitions in details.markers.items():
        for partition, offset in sorted(partitions.items()):
            first = found.positions.get(epoch, {}).get(partition)
            since = "new" if first is None else f"{offset - first:,} since the snapshot"
            OUT.print(f"marker        epoch {epoch} partition {partition}: {offset} ({since})")


@app.command()
@takes_workspace
def switch(generation: GenerationArgument, *, workspace: Workspace) -> None:
    """Make a ready (or retired) generation the one that all readers read.

    All readers turn together, a moment from now (store.switch_delay_seconds). A generation that
    `feast materialize` has loaded is held against its snapshot first. Switching back works until
    the old generation is dropped.
    """
    live = workspace.live_generation()
    before = 0 if live is None else workspace.generation(live).generation.rows
    seconds = workspace.switch(generation)
    OUT.print(f"generation {generation} is live in {seconds:.1f} s")
    rows = workspace.generation(generation).generation.rows
    if rows < before:
        ERR.print(
            f"warning: it has {rows:,} users, generation {live} has {before:,}; "
            f"`uic memories switch {live}` goes back"
        )


@app.command()
@takes_workspace
def drop(generation: GenerationArgument, *, yes: YesOption = False, workspace: Workspace) -> None:
    """Delete a generation that is not read, slowly enough for readers of others not to notice.

    May be interrupted; the same command goes on. Snapshots and tombstones stay: `uic memories
    load` of its snapshot brings it back. Says what goes and asks.
    """
    stored = workspace.generation(generation).generation
    what = f"{stored.rows:,} memories of generation {generation} ({stored.bundle_name})"
    confirm([what], yes=yes)
    with shown_progress() as progress:
        deleted = workspace.drop(generation, progress=progress)
    OUT.print(f"generation {generation} dropped, {deleted:,} memories deleted")


@app.command()
@takes_workspace
def prune(
    keep: Annotated[
        int | None, typer.Option(min=1, help="Snapshots; default: memories.snapshots_kept.")
    ] = None,
    *,
    yes: YesOption = False,
    workspace: Workspace,
) -> None:
    """Remove all but the newest snapshots of each generation from the workspace.

    Says what goes and asks; a schedule says --yes.
    """
    confirm([str(snapshot.path) for snapshot in workspace.prunable(keep)], yes=yes)
    removed = workspace.prune(keep)
    for snapshot in removed:
        OUT.print(f"removed {snapshot.name}", markup=False)
    if not removed:
        OUT.print("nothing to remove")


@app.command()
@takes_workspace
def upgrade(
    *,
    bundle: Annotated[
        str,
        typer.Option(
            help="New bundle: MODEL or MODEL/VERSION of WORKSPACE, or a path.",
            autocompletion=completion.bundles,
        ),
    ],
    max_lag: Annotated[
        int, typer.Option(min=0, help="Events that the new generation may lag when readers turn.")
    ] = 1000,
    workspace: Workspace,
) -> None:
    """Give every user a memory of a new bundle without a pause, and make it the live one.

    Builds a generation from the log, loads it beside the live one, streams it until it lags by at
    most --max-lag events, turns readers to it, and stops the old stream. May be cut off at any
    time; the same command goes on. Until the old generation is dropped, `uic memories switch`
    goes back.
    """
    live = workspace.upgrade(
        bundle, max_lag=max_lag, say=lambda line: ERR.print(line, markup=False)
    )
    OUT.print(f"generation {live} is live")


def _number(generation: str | None) -> int | Literal["live"] | None:
    if generation is None:
        return None
    if generation == "live":
        return "live"
    if not generation.isdecimal() or int(generation) < 1:
        msg = f"--generation: found {generation!r}, expected a number from 1, or live"
        raise BadInputError(msg)
    return int(generation)


def _describe(snapshot: "Snapshot") -> None:
    manifest = snapshot.manifest
    events = manifest["events"]
    OUT.print(f"snapshot   {snapshot.path}", markup=False)
    OUT.print(f"users      {snapshot.rows:,}, {snapshot.value_bytes:,} bytes each")
    OUT.print(
        f"events     {events['folded']:,} folded, {events['excluded']:,} left out "
        f"({manifest['first_day']} to {manifest['until']})"
    )
    OUT.print(f"bundle     {manifest['bundle']} ({snapshot.bundle.hex()})", markup=False)
    if snapshot.learns_from_ms:
        since = datetime.fromtimestamp(snapshot.learns_from_ms / 1000, UTC)
        OUT.print(f"memories   of events since {since:%Y-%m-%d %H:%M} UTC; exact parts of all")
    _describe_parts(manifest)
    if events["moved"]:
        ERR.print(
            f"{events['moved']:,} events were left out: their users are in two partitions of one "
            "epoch"
        )


def _describe_parts(manifest: Mapping[str, Any]) -> None:
    """Which exact parts were taken over, and what was folded from the log."""
    taken = manifest.get("taken")
    if taken is None:
        return
    if "not" in taken:
        OUT.print(f"parts      folded from nothing: {taken['not']}", markup=False)
        return
    others = [name for name in manifest["parts"]["parts"] if name not in taken["parts"]]
    folded = [*(["the memory"] if manifest["state"] else []), *others]
    OUT.print(
        f"parts      {', '.join(taken['parts'])} taken over from {taken['from']} "
        f"({taken['bundle']})" + (f"; folded: {', '.join(folded)}" if folded else ""),
        markup=False,
    )


def _warn_of_days(workspace: Workspace, snapshot: "Snapshot") -> None:
    """Say what the days of a build leave out, and whether the log reaches its last one."""
    from uic.pipelines.log.event_log import EventLog
    from uic.pipelines.memories.nightly import outside_days

    outside = outside_days(EventLog(workspace.context.log), snapshot)
    manifest = snapshot.manifest
    if outside.older is not None and outside.older.events:
        ERR.print(
            f"warning: {outside.older}, before {manifest['first_day']}, are in none of these "
            "memories; `--days N` or memories.warm_up_days takes more days",
            markup=False,
        )
    if outside.last_day is not None and outside.last_day.isoformat() < manifest["until"]:
        ERR.print(
            f"warning: the log ends on {outside.last_day}, before {manifest['until']}; what comes "
            "in later for these days is folded by the next build"
        )
