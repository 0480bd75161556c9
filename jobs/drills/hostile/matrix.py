"""All rows of the hostile drill, and how they run."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from uic.jobs.drills.hostile import (
    access_rows,
    flink_rows,
    log_rows,
    serving_rows,
    small_rows,
    store_rows,
    stream_rows,
    topic_rows,
)
from uic.jobs.drills.hostile.row import HostileResult, HostileRow, RowVerdict, run_row
from uic.jobs.drills.hostile.stage import open_stage
from uic.models.errors import BadInputError

ROWS: Final[tuple[HostileRow, ...]] = tuple(
    sorted(
        (
            *access_rows.ROWS,
            *flink_rows.ROWS,
            *log_rows.ROWS,
            *serving_rows.ROWS,
            *small_rows.ROWS,
            *store_rows.ROWS,
            *stream_rows.ROWS,
            *topic_rows.ROWS,
        ),
        key=lambda row: (len(row.name.rstrip("ab")), row.name),
    )
)


def chosen_rows(*, short: bool, only: Sequence[str]) -> tuple[HostileRow, ...]:
    """The rows that are asked for; A12 names its halves.

    Raises:
        BadInputError: a name is none of the matrix'.
    """
    names = [row.name for row in ROWS]
    wanted: set[str] = set()
    for name in only:
        found = {one for one in names if name.lower() in {one.lower(), one.rstrip("ab").lower()}}
        if not found:
            msg = f"--only {name}: expected any of {', '.join(names)}"
            raise BadInputError(msg)
        wanted |= found
    rows = tuple(
        row for row in ROWS if (row.name in wanted or not only) and (row.short or not short)
    )
    if not rows:
        msg = f"--only {' --only '.join(only)}: the short form has none of these; leave --short out"
        raise BadInputError(msg)
    return rows


def run_hostile(
    folder: Path, rows: Sequence[HostileRow], say: Callable[[str], None]
) -> list[HostileResult]:
    """Run rows in `folder`, which must be empty or new; their results, in order."""
    results = []
    with _quiet(), open_stage(folder) as stage:
        for row in rows:
            result = run_row(row, stage)
            results.append(result)
            say(
                f"{row.name:>4}  {result.verdict.value} after {result.seconds:.1f} s: {result.seen}"
            )
    return results


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that faults bring about: what they did is in the rows."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def not_green(results: Sequence[HostileResult]) -> list[str]:
    """The rows that were asked for and did not hold or did not run, each with its verdict."""
    return [
        f"{result.row.name} {result.verdict.value}"
        for result in results
        if result.verdict is not RowVerdict.GREEN
    ]
