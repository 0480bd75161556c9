"""One line a command that runs as it stands, shown at the end of its `--help`.

Names of files, days, bundles and generations are those of a reader's own. `import table` has
examples of its own.
"""

from typing import Final

import typer
from typer.main import get_command_name

# The words that name the command, and what follows them.
EXAMPLES: Final = {
    "demo": "--quick",
    "init": "--data clicks.csv --yes",
    "doctor": "",
    "config show": "--all",
    "daily": "--until 2025-03-02 --train mimn --dry-run",
    "report": "",
    "import kuairand": "kuairand/",
    "import ali-brand": "behaviors.parquet",
    "import taobao": "UserBehavior.csv.gz",
    "import amazon": "reviews_Books_5.json.gz meta_Books.json.gz",
    "import mind": "train/behaviors.tsv --news train/news.tsv",
    "import movielens": "ml-1m",
    "import retailrocket": "events.csv",
    "import yoochoose": "yoochoose-clicks.dat yoochoose-buys.dat",
    "simulate": "--users 300 --items 300 --days 62",
    "check": "",
    "id": "alice",
    "features show": "",
    "features check": "",
    "features pull": "",
    "features load": "",
    "features push": "7 plan=gold",
    "features asof": "rows.parquet told.parquet",
    "samples": "--first 2025-02-25 --last 2025-03-02 --out default",
    "events broker": "",
    "events jars": "",
    "events produce": "--to kafka",
    "log compact": "2025-03-02",
    "log show": "--html log.html",
    "dead-letters show": "",
    "dead-letters retry": "",
    "train": "mimn --samples default --set slots=4",
    "tune": "mimn --samples default --minutes 60",
    "evaluate": "mimn --samples default",
    "compare": "average_pooling mimn --samples default",
    "bundle list": "",
    "bundle show": "mimn",
    "bundle verify": "mimn/0001",
    "bundle use": "mimn 0001",
    "images load": "",
    "images switch": "2 --with-bundle",
    "images list": "",
    "images drop": "1",
    "images pretrain": "photographs/",
    "images extract": "photographs.csv --out shop",
    "images embed": "--bundle dicm --images shop",
    "images add": "lamp.jpg --item 7 --images shop",
    "experiment": "table2 --samples default --repeats 3",
    "state init": "",
    "state show": "",
    "state check": "",
    "state publish": "",
    "store start": "",
    "store stop": "",
    "store status": "",
    "store adopt": "",
    "store sequences": "",
    "memories build": "--bundle mimn --until 2025-03-02",
    "memories load": "generation=001/dt=2025-03-02",
    "memories list": "",
    "memories show": "1",
    "memories switch": "1",
    "memories drop": "1",
    "memories prune": "--yes",
    "memories upgrade": "--bundle mimn/0002",
    "stream run": "--until-end",
    "stream plan": "plan.json",
    "stream stop": "",
    "stream status": "",
    "user show": "7",
    "user forget": "7",
    "audit": "--sample-rate 0.01",
    "serve": "--bundle mimn --port 8080",
    "serve reload": "--bundle mimn/0002",
    "drill crash": "--source files",
    "drill rollback": "",
    "drill hostile": "",
    "replay hold-back": "2025-03-02",
    "replay reset": "",
    "replay undo": "",
    "replay begin": "",
    "replay run": "",
}


def add_examples(app: typer.Typer, group: str = "") -> None:
    """Give each command of `uic`, and each group that runs by itself, its line."""
    for command in app.registered_commands:
        own = command.name or get_command_name(
            command.callback.__name__ if command.callback else ""
        )
        command.epilog = command.epilog or _line(f"{group}{own}")
    for inner in app.registered_groups:
        inner.epilog = _line(f"{group}{inner.name}")
        if inner.typer_instance is not None:
            add_examples(inner.typer_instance, f"{inner.name} ")


def _line(words: str) -> str | None:
    return f"Example: uic {words} {EXAMPLES[words]}".rstrip() if words in EXAMPLES else None
