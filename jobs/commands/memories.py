"""`uic memories`: build snapshots, load them, switch generations, drop them."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT, progress_display
from uic.jobs.config.context import DEFAULT_WORKSPACE, Context, open_context
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.feature_repo.snapshots.snapshots import Snapshot
    from uic.feature_repo.store.opened import OpenedStore

app = typer.Typer(
    no_args_is_help=True,
    help="Memories from the event log: build a snapshot, load it as a generation, switch to it.",
)
GenerationArgument = Annotated[int, typer.Argument(help="Number of the generation.", min=1)]


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="memories")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def build(
    arguments: typer.Context,
    *,
    bundle: Annotated[
        str, typer.Option(help="Bundle that folds: MODEL/VERSION of WORKSPACE/bundles, or a path.")
    ],
    until: Annotated[str, typer.Option(help="Last day to fold, YYYY-MM-DD, by log time.")],
    start: Annotated[
        str | None,
        typer.Option("--from", help="Snapshot to start from: generation=NNN/dt=DAY, or a path."),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(min=1, help="Days of a build from nothing; default: memories.warm_up_days."),
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option(help="YAML list of rules for what is left out: from, until, sources, users."),
    ] = None,
    generation: Annotated[
        int | None, typer.Option(min=1, help="Number; default: the snapshot's, or the next.")
    ] = None,
    runner: Annotated[
        str, typer.Option(help="Beam runner: DirectRunner, FlinkRunner, PortableRunner, …")
    ] = "DirectRunner",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Fold the event log into everybody's memory, in log order, up to and including a day.

    Without --from this is the warm-up. With yesterday's snapshot and the next day it is the daily
    snapshot, and gives the same memories to the bit. With an older, clean snapshot and --exclude
    it is the rebuild after an incident, as a new generation. Sale days are left out as the
    section `sale` of the settings says. What follows `--` goes to Beam.
    """
    context = open_context(workspace, config)
    last = _day(until, "--until")

    from uic.pipelines.memories.build import MemoriesRequest, build_memories
    from uic.pipelines.memories.exclude import load_rules

    request = MemoriesRequest(
        log=context.log,
        memories=context.memories,
        bundle=_folder(context.bundles, bundle, "--bundle"),
        until=last,
        time_zone=context.config.time_zone,
        memories_settings=context.config.memories,
        sale=context.config.sale,
        start=None if start is None else _folder(context.memories, start, "--from"),
        days=days,
        rules=() if exclude is None else load_rules(exclude),
        generation=generation,
    )
    with ERR.status(f"folding the log until {last}"):
        snapshot = build_memories(request, runner, arguments.args)
    _describe(snapshot)
    moved = snapshot.manifest["events"]["moved"]
    if moved:
        ERR.print(f"{moved:,} events were left out: their users are in two partitions of one epoch")


@app.command()
def load(
    snapshot: Annotated[
        str | None,
        typer.Argument(help="Snapshot: generation=NNN/dt=DAY, or a path; default: the newest."),
    ] = None,
    *,
    by_feast: Annotated[
        bool, typer.Option("--by-feast", help="Let `feast materialize` write the rows (slower).")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Load a snapshot into the store until its generation is ready to switch to.

    Can be repeated and interrupted, beside readers and a stream job: of each user the memory with
    the larger position stays.
    """
    context = open_context(workspace, config)

    from uic.feature_repo.snapshots.snapshots import Snapshot, point_current_to
    from uic.feature_repo.store.opened import open_memories

    found = (
        _newest(context)
        if snapshot is None
        else Snapshot.open(_folder(context.memories, snapshot, "SNAPSHOT"))
    )
    with open_memories(context.config.store, context.workspace) as store:
        point_current_to(found.path)
        landed = _materialize(context, store, found) if by_feast else _load(store, found)
        generation = store.generations.get(found.generation)
    OUT.print(
        f"generation {generation.number}: {generation.state}, {found.rows:,} users loaded"
        + ("" if landed is None else f", {landed:,} of them newer than what was there"),
        markup=False,
    )


@app.command(name="list")
def list_all(workspace: WorkspaceOption = DEFAULT_WORKSPACE, config: ConfigOption = None) -> None:
    """Print the generations in the store and the snapshots in the workspace."""
    context = open_context(workspace, config)

    from uic.feature_repo.snapshots.snapshots import list_snapshots
    from uic.feature_repo.store.errors import EmptyStoreError
    from uic.feature_repo.store.opened import open_memories

    with open_memories(context.config.store, context.workspace) as store:
        try:
            live = store.generations.live()
        except EmptyStoreError:
            live = 0
        generations = store.generations.all()
    OUT.print("generation  state      users      expected   bundle")
    for found in generations:
        mark = "*" if found.number == live else " "
        OUT.print(
            f"{found.number:>9}{mark}  {found.state:<9}  {found.rows:<9,}  "
            f"{found.rows_expected:<9,}  {found.bundle_name} ({found.bundle.hex()})",
            markup=False,
        )
    if not generations:
        OUT.print("(none: the store is empty; load a snapshot)")
    OUT.print("")
    OUT.print("snapshot                       users      events     bundle")
    for snapshot in list_snapshots(context.memories):
        folded = snapshot.manifest["events"]["folded"]
        OUT.print(
            f"{snapshot.name:<29}  {snapshot.rows:<9,}  {folded:<9,}  "
            f"{snapshot.manifest['bundle']} ({snapshot.bundle.hex()})",
            markup=False,
        )


@app.command()
def show(
    generation: GenerationArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Print what the store knows of a generation: state, users, positions, what it leaves out."""
    context = open_context(workspace, config)

    from uic.feature_repo.store.opened import open_memories

    with open_memories(context.config.store, context.workspace) as store:
        found = store.generations.get(generation)
        markers = store.generations.markers(generation)
        forgotten = len(store.generations.forgotten())
    OUT.print(f"generation    {found.number} ({found.state})", markup=False)
    OUT.print(f"users         {found.rows:,} of {found.rows_expected:,} in its snapshot")
    OUT.print(f"bundle        {found.bundle_name} ({found.bundle.hex()})", markup=False)
    OUT.print(f"memory        {found.record_bytes:,} bytes a user")
    OUT.print(f"snapshot      {found.snapshot}", markup=False)
    OUT.print(f"leaves out    {_excluded(found.exclude)}", markup=False)
    OUT.print(f"forgotten     {forgotten:,} users, in every generation")
    for epoch, partitions in markers.items():
        for partition, offset in sorted(partitions.items()):
            began = found.positions.get(epoch, {}).get(partition)
            since = "new" if began is None else f"{offset - began:,} since the snapshot"
            OUT.print(f"marker        epoch {epoch} partition {partition}: {offset} ({since})")


@app.command()
def switch(
    generation: GenerationArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Make a ready (or retired) generation the one that everybody reads.

    All readers turn together, a moment from now (store.switch_delay_seconds). A generation that
    `feast materialize` has loaded is held against its snapshot first. Switching back works until
    the old generation is dropped.
    """
    context = open_context(workspace, config)

    from uic.feature_repo.snapshots.snapshots import Snapshot
    from uic.feature_repo.store.generations import State
    from uic.feature_repo.store.opened import open_memories

    with open_memories(context.config.store, context.workspace) as store:
        found = store.generations.get(generation)
        if found.state is State.LOADING:
            snapshot = Snapshot.open(context.memories / found.snapshot)
            store.generations.complete(generation, snapshot.user_ids())
        seconds = store.generations.switch(generation, context.config.store.switch_delay_seconds)
    OUT.print(f"generation {generation} is live in {seconds:.1f} s")


@app.command()
def drop(
    generation: GenerationArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Delete a generation that nobody reads, slowly enough for readers of others not to notice.

    May be interrupted; the same command goes on. Snapshots and tombstones stay.
    """
    context = open_context(workspace, config)

    from uic.feature_repo.store.opened import open_memories

    deleted = 0
    with open_memories(context.config.store, context.workspace) as store:
        found = store.generations.get(generation)
        with progress_display() as progress:
            task = progress.add_task(f"dropping generation {generation}", total=found.rows)
            for deleted in store.generations.drop(
                generation, context.config.store.drop_keys_per_second
            ):
                progress.update(task, completed=deleted)
    OUT.print(f"generation {generation} dropped, {deleted:,} memories deleted")


@app.command()
def prune(
    keep: Annotated[
        int | None, typer.Option(min=1, help="Snapshots; default: memories.snapshots_kept.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Remove all but the newest snapshots of each generation from the workspace."""
    context = open_context(workspace, config)

    from uic.pipelines.memories.prune import prune_snapshots

    removed = prune_snapshots(context.memories, keep or context.config.memories.snapshots_kept)
    for snapshot in removed:
        OUT.print(f"removed {snapshot.name}", markup=False)
    if not removed:
        OUT.print("nothing to remove")


def _load(store: "OpenedStore", snapshot: "Snapshot") -> int:
    from uic.feature_repo.plugin.loading import load_snapshot

    with progress_display() as progress:
        task = progress.add_task(f"loading {snapshot.name}", total=snapshot.rows)
        loaded = load_snapshot(
            snapshot,
            store.memories,
            store.generations,
            lambda rows: progress.update(task, completed=rows),
        )
    return loaded.landed


def _materialize(context: Context, store: "OpenedStore", snapshot: "Snapshot") -> None:
    """Load through Feast; what landed is not known there."""
    from uic.feature_repo.plugin.repository import materialize_memories

    store.generations.register(snapshot.as_generation())
    with ERR.status(f"feast materialize {snapshot.name}"):
        materialize_memories(context.config.store, context.workspace, snapshot)
    store.generations.complete(snapshot.generation, snapshot.user_ids())


def _newest(context: Context) -> "Snapshot":
    from uic.feature_repo.snapshots.snapshots import list_snapshots

    found = list_snapshots(context.memories)
    if not found:
        msg = f"{context.memories}: no snapshot; build one with `uic memories build`"
        raise BadInputError(msg)
    return max(found, key=lambda snapshot: (snapshot.generation, snapshot.manifest["until"]))


def _folder(root: Path, text: str, option: str) -> Path:
    """A name under `root`, or a path."""
    for candidate in (root / text, Path(text)):
        if candidate.is_dir():
            return candidate
    msg = f"{option} {text}: no such folder, neither here nor in {root}"
    raise BadInputError(msg)


def _day(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        msg = f"{option} {text}: not a day; expected YYYY-MM-DD"
        raise BadInputError(msg) from error


def _describe(snapshot: "Snapshot") -> None:
    manifest = snapshot.manifest
    events = manifest["events"]
    OUT.print(f"snapshot   {snapshot.path}", markup=False)
    OUT.print(f"users      {snapshot.rows:,}, {snapshot.record_bytes:,} bytes each")
    OUT.print(
        f"events     {events['folded']:,} folded, {events['excluded']:,} left out "
        f"({manifest['first_day']} to {manifest['until']})"
    )
    OUT.print(f"bundle     {manifest['bundle']} ({snapshot.bundle.hex()})", markup=False)


def _excluded(document: object) -> str:
    from uic.pipelines.memories.exclude import Exclusion

    exclusion = Exclusion.from_json(document if isinstance(document, dict) else {})
    names = [rule.name or "unnamed rule" for rule in exclusion.rules]
    if exclusion.sale_edges_ms:
        names.append(f"{len(exclusion.sale_edges_ms) // 2} sale days")
    return ", ".join(names) or "nothing"
