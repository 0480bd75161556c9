"""`uic drill`: exercises that show that the system survives what it claims to survive."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from uic.jobs.config.console import ERR, OUT
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.jobs.drills.hostile.row import HostileResult
    from uic.jobs.drills.rollback import RollbackReport

app = typer.Typer(no_args_is_help=True, help="Break things on purpose, and look at the result.")


class Source(StrEnum):
    """Where the drill's events come from."""

    KAFKA = "kafka"
    FILES = "files"


SourceOption = Annotated[Source, typer.Option(help="A real Kafka broker, or files.")]
KillsOption = Annotated[
    str, typer.Option(help="What is killed, in order: worker, java, redis, away, restore.")
]
WrongClicksOption = Annotated[
    int, typer.Option(min=1, help="Clicks with wrong ids by a broken producer, for each user.")
]
CrawlerClicksOption = Annotated[int, typer.Option(min=1, help="Clicks of a crawler, one new user.")]
OnlyOption = Annotated[
    list[str] | None, typer.Option(help="A row by its name, such as A7; may be repeated.")
]
ShortOption = Annotated[
    bool, typer.Option("--short", help="Leave out the rows that start Flink or Kafka.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the matrix as JSON.")]
FolderOption = Annotated[
    Path | None, typer.Option(help="New folder to work in; default: a temporary one.")
]


@app.command()
def crash(
    *,
    source: SourceOption = Source.KAFKA,
    events: Annotated[int, typer.Option(min=1000, help="Events of the log.")] = 200_000,
    kills: KillsOption = "worker,redis,java,away,restore,worker,java",
    seed: Annotated[int, typer.Option(help="Of the log and of the moments.")] = 1,
    folder: FolderOption = None,
) -> None:
    """Kill -9 Python workers, the JVM and Redis while events stream, then compare every memory.

    Prints what was killed and when. Ends with status 3 if a memory differs by one byte from the
    batch fold of the same log, or a dead letter is missing. `away` kills Redis for longer than a
    worker waits, `restore` puts it back to a copy of its files from before. Takes a few minutes;
    needs Java, and for Kafka `make jars`.
    """
    from uic.jobs.drills.crash import DrillOptions, run_drill
    from uic.jobs.drills.killer import KILLS

    chosen = tuple(name.strip() for name in kills.split(",") if name.strip())
    for name in chosen:
        if name not in KILLS:
            msg = f"--kills: found {name!r}, expected any of {', '.join(KILLS)}"
            raise BadInputError(msg)
    options = DrillOptions(source=source.value, events=events, kills=chosen, seed=seed)
    with _working_folder(folder) as chosen_folder:
        report = run_drill(chosen_folder, options, _say)
    OUT.print(
        f"{report.users:,} memories are byte for byte the batch fold of {events:,} events, after "
        f"{len(report.kills)} kills in {report.seconds:.0f} s",
        markup=False,
    )


@app.command()
def rollback(
    *,
    users: Annotated[int, typer.Option(min=50, help="Users of the simulated shop.")] = 600,
    days: Annotated[int, typer.Option(min=5, help="Simulated days.")] = 14,
    wrong_clicks: WrongClicksOption = 30,
    crawler_clicks: CrawlerClicksOption = 3000,
    seed: Annotated[int, typer.Option(help="Of the log, the model and the poison.")] = 1,
    folder: FolderOption = None,
) -> None:
    """Poison a day, notice it, and roll all memories back without a pause.

    A simulated shop streams a day into which a broken producer writes wrong item ids, and a
    crawler its clicks. AUC of the next day's impressions falls; the audit still says that the
    store is what the log says, so the log is at fault. Then, while the service is asked for
    rankings all the time: `uic memories build --from` midnight's snapshot with `--exclude`, load,
    catch up, switch. Prints the timeline. Ends with status 3 if a memory differs by one byte from
    that of a log without the poison, or a request failed. Takes a few minutes.
    """
    from uic.jobs.drills.rollback import RollbackOptions, run_rollback
    from uic.jobs.drills.shop import ShopSize

    options = RollbackOptions(
        size=ShopSize(users=users, days=days),
        wrong_clicks=wrong_clicks,
        crawler_clicks=crawler_clicks,
        seed=seed,
    )
    with _working_folder(folder) as chosen_folder:
        report = run_rollback(chosen_folder, options, _say)
    _show_rollback(report)


@app.command()
def hostile(
    *,
    short: ShortOption = False,
    only: OnlyOption = None,
    as_json: JsonOption = False,
    folder: FolderOption = None,
) -> None:
    """Attack an installation: kills, faults, hostile input, exposure; a row each, A1 to A20.

    Each row says what is done, what must hold, and what was seen; its control shows that the same
    check refuses what it should. In a folder of its own: its stores, services and brokers are real
    and end with it. Ends with status 3 unless every row that was asked for is green; a row that
    could not run is not. The short form takes a minute or two, the whole some ten; it needs Java,
    and for Kafka `make jars`.
    """
    from uic.jobs.drills.errors import DrillFailedError
    from uic.jobs.drills.hostile.matrix import chosen_rows, not_green, run_hostile

    rows = chosen_rows(short=short, only=only or ())
    with _working_folder(folder) as chosen_folder:
        results = run_hostile(chosen_folder, rows, _say)
    wrong = not_green(results)
    if as_json:
        document = {"green": not wrong, "rows": [result.to_json() for result in results]}
        OUT.print(json.dumps(document, indent=1), markup=False)
    else:
        _show_matrix(results)
    if wrong:
        msg = f"{len(wrong)} of {len(results)} rows are not green: {', '.join(wrong)}"
        raise DrillFailedError(msg)


def _show_matrix(results: "Sequence[HostileResult]") -> None:
    table = Table("row", "", "fault", "must hold", "seen", "control", box=SIMPLE_HEAD)
    for result in results:
        row = result.row
        cells = (row.fault, row.holds, result.seen, result.control or "none")
        table.add_row(row.name, result.verdict.value, *map(escape, cells))
    OUT.print(table)


def _show_rollback(report: "RollbackReport") -> None:
    table = Table("seconds", "step", "what was seen", box=SIMPLE_HEAD)
    table.columns[0].justify = "right"
    for moment in report.timeline:
        table.add_row(f"{moment.seconds:.1f}", moment.step, moment.figure)
    OUT.print(table)
    OUT.print(
        f"{report.users:,} memories are byte for byte those of a log that never had the poison; "
        f"{report.answers.asked:,} requests meanwhile, none failed",
        markup=False,
    )


@contextmanager
def _working_folder(folder: Path | None) -> Iterator[Path]:
    """The folder that was asked for, or a temporary one."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="uic-drill-") as temporary:
            yield Path(temporary)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"--folder {folder}: not an empty folder; give a new one"
        raise BadInputError(msg)
    yield folder


def _say(line: str) -> None:
    ERR.print(line, markup=False)
