"""The papers' tables as lists of runs, read from `tables.yaml` beside this module."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import yaml

from uic.models.training.warm_up import WarmUp


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        label: as the paper has it.
        model: name in the catalogue; a row whose model is not there is printed only.
        settings: `key=value` of this row.
        warm_up: what the row starts from: nothing, or a model of the days before the last one.
        printed: the paper's figures, a text for each of the table's `printed` columns.
    """

    label: str
    model: str = ""
    settings: tuple[str, ...] = ()
    warm_up: WarmUp = WarmUp.NONE
    printed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: for its head line.
        printed: names of the paper's columns; the first is an AUC, or with `images` a GAUC.
        rows: in the paper's order; gains are over the first.
        images: the table is about images: GAUC first, gains as differences, new items apart.
        race: the table is of models, and has the simple rows of `experiments.intervals`, too.
    """

    title: str
    printed: tuple[str, ...]
    rows: tuple[Row, ...]
    images: bool = False
    race: bool = False


@dataclass(frozen=True)
class CostTables:
    """What the cost of a request is measured for, and what IMN prints beside it.

    Attributes:
        titles: by the name of the table.
        models: in the catalogue.
        lengths: events of the history.
        complexity: paradigm, complexity, sequential operations and longest path of a model.
        forward_ms: printed milliseconds, by model and length.
    """

    titles: dict[str, str]
    models: tuple[str, ...]
    lengths: tuple[int, ...]
    complexity: dict[str, list[str]]
    forward_ms: dict[str, dict[int, str]]


def _row(document: dict[str, Any]) -> Row:
    return Row(
        label=document["label"],
        model=document.get("model", ""),
        settings=tuple(document.get("settings", ())),
        warm_up=WarmUp(document.get("warm_up", "none")),
        printed=tuple(document.get("printed", ())),
    )


def _table(document: dict[str, Any]) -> Table:
    rows = tuple(_row(row) for row in document["rows"])
    return Table(
        document["title"],
        tuple(document["printed"]),
        rows,
        images=document.get("images", False),
        race=document.get("race", False),
    )


_DOCUMENT: Final[dict[str, Any]] = yaml.safe_load(
    files("uic.jobs.experiments").joinpath("tables.yaml").read_text(encoding="utf-8")
)
_COSTS: Final[dict[str, Any]] = _DOCUMENT.pop("costs")
TABLES: Final = {name: _table(document) for name, document in _DOCUMENT.items()}
COSTS: Final = CostTables(
    titles={name: title for name, title in _COSTS.items() if name.startswith("imn-")},
    models=tuple(_COSTS["models"]),
    lengths=tuple(_COSTS["lengths"]),
    complexity=_COSTS["complexity"],
    forward_ms=_COSTS["forward_ms"],
)
