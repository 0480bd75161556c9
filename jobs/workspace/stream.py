"""The stream job: run, plan, stop and look at it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from uic.jobs.config.context import Context
from uic.jobs.config.progress import Progress, no_progress, say_nothing
from uic.jobs.workspace.base import WorkspacePanel
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.jobs.stream.fold.plan import JobPlan
    from uic.jobs.stream.letters.pruning import Pruned
    from uic.jobs.stream.run.detached import DetachedStream
    from uic.jobs.stream.run.start_positions import Start
    from uic.jobs.stream.run.supervisor import Supervisor


@dataclass(frozen=True)
class StreamPlan:
    """The plan of a run, and where it starts in each partition."""

    plan: "JobPlan"
    starts: "Sequence[Start]"


class StreamPanel(WorkspacePanel):
    """Methods of `Workspace.stream`."""

    def prune(self) -> "list[Pruned]":
        """Remove old files of the archive, of dead letters and of served features.

        Returns:
            The places that had some. How old: `stream.archive_days`, `stream.dead_letter_days`,
            `serve.feature_days`.
        """
        from uic.jobs.stream.letters.pruning import prune_streamed

        return prune_streamed(self.context)

    def supervisor(
        self,
        *,
        generation: int | None = None,
        source: str | None = None,
        parallelism: int | None = None,
        until_end: bool = False,
        bundle: Path | None = None,
        accept_loss: bool = False,
        new_epoch: bool = False,
        checkpoint: Path | None = None,
        say: Callable[[str], None] | None = None,
        progress: Progress = no_progress,
    ) -> "Supervisor":
        """What runs the stream job of one generation: `run` folds events until `request_stop`.

        Args:
            generation: to fold; None: the live one.
            source: kafka or files; None: `stream.source`.
            parallelism: subtasks; None: `stream.parallelism`.
            until_end: stop at the end that the source has now.
            bundle: its folder; None: the generation's own.
            accept_loss: go on where retention has removed the start.
            new_epoch: go on with a topic that was made anew.
            checkpoint: to resume from; None: the store's marker.
            say: told each attempt and how it ended.
            progress: told how many events are read, with `until_end`.

        Raises:
            BadInputError: a setting is out of range.
        """
        from uic.jobs.stream.run.planner import Planner, RunOptions
        from uic.jobs.stream.run.supervisor import Supervisor

        options = RunOptions(
            generation=generation,
            bundle=bundle,
            until_end=until_end,
            accept_loss=accept_loss,
            new_epoch=new_epoch,
            restore_from=checkpoint,
        )
        planner = Planner(_with_stream(self.context, source, parallelism), options)
        return Supervisor(planner, say or say_nothing, progress)

    def start(
        self, generation: int | None = None, arguments: Sequence[str] | None = None
    ) -> "DetachedStream":
        """Run `uic stream run` in a session of its own, and wait until it streams.

        Args:
            generation: to fold; None: the live one.
            arguments: of `uic`; None: `stream run` of this workspace and generation.

        Raises:
            StreamFailedError: it did not start; holds the end of its log.
        """
        from uic.jobs.stream.run.detached import start_and_wait

        return start_and_wait(self.context, generation, arguments)

    def stop(self, generation: int | None = None) -> tuple[int, bool]:
        """Stop the stream of a generation with a savepoint, and wait until it has ended.

        Returns:
            Number of the generation, and whether it was streaming.

        Raises:
            StreamFailedError: it did not end.
        """
        from uic.jobs.stream.run.detached import stop_stream
        from uic.jobs.stream.run.planner import Planner, RunOptions

        options = RunOptions(generation=generation)
        number = Planner(self.context, options).generation().number
        return number, stop_stream(self.context, number)

    def status(self, generation: int | None = None) -> Iterator[str]:
        """Rates, lag per partition, freshness and rejects, one line of text each.

        Raises:
            StoreError: the store does not answer, or has no such generation.
        """
        from uic.jobs.stream.run.report import status_lines

        return status_lines(self.context, generation)

    def plan(
        self,
        out: str | Path,
        *,
        generation: int | None = None,
        parallelism: int | None = None,
        until_end: bool = False,
    ) -> StreamPlan:
        """Write the plan of the next run as JSON, for a Flink cluster.

        Args:
            out: file to write.
            generation: to fold; None: the live one.
            parallelism: subtasks; None: `stream.parallelism`.
            until_end: stop at the end that the source has now.

        Raises:
            BadInputError: the job cannot be planned.
        """
        from uic.jobs.stream.run.planner import Planner, RunOptions

        context = _with_stream(self.context, None, parallelism)
        planner = Planner(context, RunOptions(generation=generation, until_end=until_end))
        plan, starts = planner.plan(planner.generation().number, attempt=1)
        if plan.source == "files":
            planner.stage(plan)
        Path(out).write_text(plan.model_dump_json(indent=1), encoding="utf-8")
        return StreamPlan(plan, starts)


def _with_stream(context: Context, source: str | None, parallelism: int | None) -> Context:
    """The context with other values in its section `stream`."""
    from pydantic import ValidationError

    from uic.jobs.config.stream import StreamSettings

    chosen = {"source": source, "parallelism": parallelism}
    changed = {name: value for name, value in chosen.items() if value is not None}
    try:
        stream = StreamSettings(**{**context.config.stream.model_dump(), **changed})
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"--{first['loc'][0]}: {first['msg']} (found {first['input']!r})"
        raise BadInputError(msg) from error
    return replace(context, config=context.config.model_copy(update={"stream": stream}))
