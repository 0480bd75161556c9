"""`uic samples`: grouped training samples from the event log."""

from datetime import date
from functools import partial
from typing import Annotated, Any

import typer

from uic.jobs.config.context import (
    DEFAULT_WORKSPACE,
    ERR,
    OUT,
    ConfigOption,
    WorkspaceOption,
    open_context,
)
from uic.models.errors import BadInputError

DEFAULT_NAME = "default"
# The manifest has all days and users; a remark is to be read.
_NAMED_DAYS = 5


def register(root: typer.Typer) -> None:
    """Add the command to the command line."""
    root.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})(
        samples
    )


def samples(
    arguments: typer.Context,
    *,
    first: Annotated[str, typer.Option(help="First day of impressions, YYYY-MM-DD.")],
    last: Annotated[str, typer.Option(help="Last day of impressions, YYYY-MM-DD, included.")],
    out: Annotated[
        str, typer.Option(help="Name of the samples: a folder of WORKSPACE/samples.")
    ] = DEFAULT_NAME,
    runner: Annotated[
        str, typer.Option(help="Beam runner: DirectRunner, FlinkRunner, PortableRunner, …")
    ] = "DirectRunner",
    gates: Annotated[
        bool, typer.Option(help="Judge the log before and the samples after; see `uic check`.")
    ] = True,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Group each user's impressions of a day with the history that they share.

    Reads the event log, writes WORKSPACE/samples/NAME, published whole or not at all: readers
    keep the old version until the new one is complete. Any number of days in one run: behaviours
    are read once. Window, cap, cut and the guard against machines are in the section `samples`
    of the settings, sale days in `sale`. A failed quality gate publishes nothing (exit status 3).

    What follows `--` goes to Beam, for example `-- --flink_master=host:8081`. On a cluster the
    workspace must be a folder that all workers share.
    """
    days = (_day(first, "--first"), _day(last, "--last"))
    context = open_context(workspace, config)
    if not out or out.startswith(".") or "/" in out:
        msg = f"--out: found {out!r}, expected a name without / that does not begin with a dot"
        raise BadInputError(msg)

    from uic.jobs.checks.gates import check_inputs, check_samples
    from uic.pipelines.samples.run import SamplesRequest, make_samples

    request = SamplesRequest(
        log=context.log,
        output=context.samples / out,
        first=days[0],
        last=days[1],
        time_zone=context.config.time_zone,
        samples=context.config.samples,
        sale=context.config.sale,
        gate=partial(check_samples, context) if gates else None,
    )
    if gates:
        check_inputs(context, *days)
    with ERR.status(f"grouping the impressions of {days[0]} to {days[1]}"):
        manifest = make_samples(request, runner, arguments.args)
    _remark(manifest)
    for line in _summary(manifest):
        OUT.print(line, markup=False)
    OUT.print(f"samples: {request.output}", markup=False)


def _day(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        msg = f"{option}: found {text!r}, expected a day like 2025-11-11"
        raise BadInputError(msg) from error


def _remark(manifest: dict[str, Any]) -> None:
    """What a person should know before training on it, on standard error."""
    if manifest["empty_days"]:
        days = ", ".join(manifest["empty_days"][:_NAMED_DAYS])
        more = len(manifest["empty_days"]) - _NAMED_DAYS
        days += f" and {more} more days" if more > 0 else ""
        ERR.print(f"[yellow]no impressions on {days}: these days have no samples[/]")
    left_out = manifest["left_out"]
    if left_out["inhuman_users"]:
        limit = manifest["settings"]["max_events_per_day"]
        ids = ", ".join(map(str, left_out["inhuman_user_ids"]))
        ERR.print(
            f"[yellow]{left_out['inhuman_users']:,} users with more than {limit:,} behaviours in "
            f"one day left out, with {left_out['inhuman_impressions']:,} impressions: {ids}"
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
    return [
        f"days                 {manifest['first']} to {manifest['last']}",
        f"behaviours read      {manifest['read']['behaviors']:,}",
        f"impressions          {manifest['impressions']:,} in {manifest['groups']:,} groups",
        f"left out, sale days  {sale}",
        f"left out, machines   {machines}",
        f"bytes                {grouping['bytes']:,} grouped",
        f"                     {single}",
    ]
