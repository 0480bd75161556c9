"""Your own table in, a model out.

    python examples/own_table.py var/own

The table here is drawn: impressions of 40 visitors over 12 days, each of whom likes one kind of
article. Take your own file instead: only `TableColumns` has to know its columns.
"""

import csv
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uic
from uic.pipelines.importers.table import TableColumns, TimeUnit

START = datetime(2025, 1, 1, tzinfo=UTC)


def write_table(path: Path) -> None:
    """Impressions with a click, by time."""
    draw = random.Random(7)  # noqa: S311 - an example, no secret
    rows = []
    for visitor in range(40):
        for _ in range(150):
            article = draw.randrange(60)
            liked = article % 4 == visitor % 4
            seen = START + timedelta(seconds=draw.randrange(12 * 86_400))
            clicked = draw.random() < (0.6 if liked else 0.1)
            rows.append((seen.isoformat(), f"v{visitor}", article, article % 4, int(clicked)))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["seen", "visitor", "article", "section", "clicked"])
        writer.writerows(sorted(rows))


def main(folder: Path) -> None:
    """Import, make samples, train, measure."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "impressions.csv"
    write_table(table)
    workspace = uic.Workspace(folder)
    columns = TableColumns(
        user_id="visitor",
        item_id="article",
        category_id="section",
        event_time="seen",
        clicked="clicked",
        string_ids=frozenset({"user"}),
        time_unit=TimeUnit.ISO,
    )
    imported = workspace.import_table(table, columns, name="articles")
    print(f"{imported.publication.impressions:,} impressions of {imported.publication.users} users")
    workspace.samples("2025-01-06", "2025-01-12", gates=False)
    settings = {"learning_rate": 0.01, "batch_impressions": 64}
    bundle = workspace.train("din", epochs=6, settings=settings)
    assert bundle.metrics is not None
    print(f"{bundle.label} at {bundle.path}: AUC {bundle.metrics.auc:.3f} on the last day")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "var/own-table"))
