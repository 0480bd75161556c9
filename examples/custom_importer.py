"""An importer of your own: any format, and the log's checks, rejects and whole-or-nothing.

    python examples/custom_importer.py var/importer

The format here is a web server's: `2025-01-02T10:00:00Z GET /shop/7/cart user=17`.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

import uic
from uic.pipelines.importers.checked import Columns, accept
from uic.pipelines.importers.source import FAULTS, Batch, IdNumbers, Rejects
from uic.pipelines.log.schemas import BEHAVIORS

LINE = re.compile(r"(\S+) GET /shop/(\d+)/(view|cart) user=(\d+)")
BEHAVIOR_OF = {"view": "click", "cart": "cart"}


class AccessLog:
    """One access log; lines that do not fit go to the rejects with their number."""

    name = "access-log"
    has_impressions = False
    notes: Sequence[str] = ("A page view counts as a click.",)

    def __init__(self, path: Path) -> None:
        self._path = path
        self.total = path.stat().st_size

    def sources(self) -> Sequence[Path]:
        """The files, whose sums go into the manifest: one file is not imported twice."""
        return [self._path]

    def batches(self, rejects: Rejects, ids: IdNumbers) -> Iterator[Batch]:
        """Behaviours in file order; a large file would give many batches."""
        del ids  # ids are numbers here; `ids.numbers("user", texts)` numbers texts
        lines = self._path.read_text(encoding="utf-8").splitlines()
        rows = [_parsed(line) for line in lines]
        values = np.array(rows, dtype=np.int64).reshape(-1, 5)
        columns = Columns(
            user_ids=values[:, 0],
            item_ids=values[:, 1],
            category_ids=np.zeros(len(rows), np.int64),
            behaviors=values[:, 2],
            times_ms=values[:, 3],
            faults=values[:, 4].astype(np.int8),
            lines=np.arange(1, len(rows) + 1),
            payload=lines.__getitem__,
        )
        yield Batch(self.total, behaviors=accept(self._path, columns, rejects))


def _parsed(line: str) -> tuple[int, int, int, int, int]:
    """User, item, index of the behaviour, milliseconds, fault (0 is none)."""
    match = LINE.fullmatch(line)
    if match is None:
        return 0, 0, 0, 0, FAULTS.index("wrong_type")
    time_ms = int(datetime.fromisoformat(match[1]).timestamp() * 1000)
    return int(match[4]), int(match[2]), BEHAVIORS.index(BEHAVIOR_OF[match[3]]), time_ms, 0


def main(folder: Path) -> None:
    """Write a log of five lines, two of them unusable, and import it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "access.log"
    path.write_text(
        "2025-01-02T10:00:00Z GET /shop/7/view user=17\n"
        "2025-01-02T10:00:09Z GET /shop/7/cart user=17\n"
        "2025-01-02T10:01:00Z GET /favicon.ico\n"
        "2025-01-02T10:02:00Z GET /shop/8/view user=18\n"
        "2025-01-02T10:03:00Z POST /shop/8/view user=18\n",
        encoding="utf-8",
    )
    summary = uic.Workspace(folder).import_from(AccessLog(path))
    rejected = ", ".join(f"{rows} {reason}" for reason, rows in summary.rejects.items())
    print(f"{summary.publication.behaviors} behaviours, rejected: {rejected}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "var/custom-importer"))
