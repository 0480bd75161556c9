"""A table as Markdown, CSV and a picture.

Colours are from the Okabe-Ito palette, which people with any colour vision can tell apart; ours
and the printed figures are in panels of their own, because they are of different data.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from uic.jobs.experiments.runs import RowResult
from uic.jobs.experiments.tables import Table
from uic.models.training.metrics import relative_auc_gain

BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
GREY: Final = "#666666"
COLOURS: Final = (
    "#000000", ORANGE, "#56B4E9", "#009E73", "#CC79A7", "#D55E00", BLUE, "#999999",
)  # fmt: skip
_OURS: Final = (
    "events", "AUC", "standard error", "AUC less average pooling's, 95 %", "GAUC", "LogLoss",
    "AUC Imp", "LogLoss Imp", "attention entropy",
)  # fmt: skip
_OURS_WITH_IMAGES: Final = (
    "events", "GAUC", "GAUC gain", "AUC", "AUC gain", "LogLoss", "AUC, new items",
    "AUC gain, new items",
)  # fmt: skip
METRICS: Final = ("auc", "gauc", "logloss")
FOOTNOTE: Final = (
    "Published figures are on other data and machines: only their order compares. "
    "`-`: not run here, or not in the paper."
)


def write_table(
    folder: Path, name: str, table: Table, results: Sequence[RowResult], remark: str
) -> list[Path]:
    """Write `name`.md, .csv and .png into `folder`; their paths, Markdown first."""
    ours = _OURS_WITH_IMAGES if table.images else _OURS
    head = ["model", *(f"{column}, ours" for column in ours)]
    head += [f"{column}, published" for column in table.printed]
    cells_of = _cells_with_images if table.images else _cells
    cells = [
        [result.row.label, *cells_of(result, results[0], len(ours)), *result.row.printed]
        for result in results
    ]
    numbers: list[list[object]] = [_numbers_head(table), *map(_numbers, results)]
    paths = write_cells(folder, name, (table.title, remark), [head, *cells], numbers)
    return [*paths, save_figure(_figure(table, results), folder / f"{name}.png")]


def write_cells(
    folder: Path,
    name: str,
    heading: tuple[str, str],
    cells: Sequence[Sequence[str]],
    numbers: Sequence[Sequence[object]],
) -> list[Path]:
    """Write a table as `name`.md for people and `name`.csv for programs; their paths.

    Args:
        folder: is made.
        name: of the files.
        heading: the page's title, and a remark on how to make the table again.
        cells: of the page, its head first.
        numbers: of the CSV, its head first, in full precision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"| {' | '.join(row)} |" for row in cells]
    lines.insert(1, "|---" * len(cells[0]) + "|")
    title, remark = heading
    text = "\n".join([f"# {title}", "", remark, "", *lines, "", FOOTNOTE, ""])
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(numbers)
    return [folder / f"{name}.md", folder / f"{name}.csv"]


def _numbers_head(table: Table) -> list[object]:
    head: list[object] = ["model", "repeats", "events"]
    head += [f"{name}_{part}" for name in METRICS for part in ("mean", "std")]
    head += ["auc_new_items_mean", "auc_standard_error"]
    head += ["auc_difference", "auc_difference_low", "auc_difference_high"]
    return [*head, *(f"published {column}" for column in table.printed)]


def _numbers(result: RowResult) -> list[object]:
    """A row in full precision; what was not measured is empty."""
    ours: list[object] = []
    for name in METRICS:
        ours += [result.mean(name), result.deviation(name)]
    ours += [result.mean("auc", "new"), result.error("auc")]
    paired = result.difference
    ours += [None] * 3 if paired is None else [paired.mean, paired.low, paired.high]
    trained = sum(1 for run in result.runs if run.get("epochs"))
    return [result.row.label, trained, result.length, *ours, *result.row.printed]


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a picture without a date: two runs of the same experiment give the same bytes."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    return path


def _cells(result: RowResult, base: RowResult, columns: int) -> list[str]:
    """Our cells of a row, in the order of `_OURS`; gains are relative."""
    if result.out_of_memory_gib is not None:
        return _out_of_memory(result, columns)
    gains = ["-", "-"]
    auc, base_auc = result.mean("auc"), base.mean("auc")
    logloss, base_logloss = result.mean("logloss"), base.mean("logloss")
    if result is not base and auc is not None and base_auc is not None:
        gains[0] = f"{relative_auc_gain(auc, base_auc):+.2%}"
    if result is not base and logloss is not None and base_logloss is not None:
        gains[1] = f"{logloss / base_logloss - 1:+.2%}"
    auc_of, *figures = [_plus_minus(result, name) for name in ("auc", "gauc", "logloss")]
    error, paired = result.error("auc"), result.difference
    beside = [
        "-" if error is None else f"{error:.4f}",
        "-" if paired is None else paired.describe(),
    ]
    entropies = ", ".join(f"{entropy:.2f}" for entropy in result.entropies)
    return [result.length, auc_of, *beside, *figures, *gains, entropies or "-"]


def _cells_with_images(result: RowResult, base: RowResult, columns: int) -> list[str]:
    """Our cells of a row, in the order of `_OURS_WITH_IMAGES`; gains are differences."""
    if result.out_of_memory_gib is not None:
        return _out_of_memory(result, columns)
    cells = [result.length]
    for name in ("gauc", "auc"):
        cells += [_plus_minus(result, name), _gain(result, base, name)]
    cells.append(_plus_minus(result, "logloss"))
    return [*cells, _plus_minus(result, "auc", "new"), _gain(result, base, "auc", "new")]


def _out_of_memory(result: RowResult, columns: int) -> list[str]:
    reason = f"out of memory (> {result.out_of_memory_gib:g} GiB)"
    return [result.length, reason, *["-"] * (columns - 2)]


def _gain(result: RowResult, base: RowResult, name: str, items: str = "all") -> str:
    ours, theirs = result.mean(name, items), base.mean(name, items)
    if result is base or ours is None or theirs is None:
        return "-"
    return f"{ours - theirs:+.4f}"


def _plus_minus(result: RowResult, name: str, items: str = "all") -> str:
    mean, deviation = result.mean(name, items), result.deviation(name, items)
    if mean is None:
        return "-"
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"


def _figure(table: Table, results: Sequence[RowResult]) -> Figure:
    """Ours and the first printed AUC, in panels of their own."""
    name = "GAUC" if table.images else "AUC"
    places = np.arange(len(results))[::-1]
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(results)), layout="constrained")
    ours, theirs = figure.subplots(1, 2, sharey=True)
    for result, place in zip(results, places, strict=True):
        mean = result.mean(name.lower())
        if mean is not None:
            bar = result.deviation(name.lower()) or 0.0
            ours.errorbar(mean, place, xerr=bar, fmt="o", color=BLUE, capsize=3)
        printed = _number(result.row.printed[0]) if result.row.printed else None
        if printed is not None:
            theirs.plot(printed, place, "s", color=ORANGE)
    ours.set_yticks(places, [result.row.label for result in results])
    ours.set_xlabel(f"{name}, ours (bars: standard deviation over seeds)")
    published = (
        f"{table.printed[0]}, published, on other data" if table.printed else "none published"
    )
    theirs.set_xlabel(published)
    for axes in (ours, theirs):
        axes.grid(axis="x", color="#dddddd")
        axes.set_axisbelow(True)
    figure.suptitle(table.title)
    return figure


def _number(printed: str) -> float | None:
    """The first number of a printed cell; None for a dash or a word."""
    try:
        return float(printed.split(" ", maxsplit=1)[0])
    except ValueError:
        return None
