"""The IMN and LMN tables as Markdown, CSV and a picture (colours and layout of the MIMN tables)."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from uic.jobs.experiments.family_tables import PARADIGMS, PRINTED_FORWARD_MS, FamilyRow, FamilyTable
from uic.jobs.experiments.runs import RowResult
from uic.models.training.metrics import relative_auc_gain

_BLUE: Final = "#0072B2"
_ORANGE: Final = "#E69F00"
_COLOURS: Final = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#999999",
)  # fmt: skip
_OURS: Final = ("events", "AUC", "GAUC", "LogLoss", "AUC Imp", "LogLoss Imp", "attention entropy")


_OURS_WITH_IMAGES: Final = (
    "events", "GAUC", "GAUC gain", "AUC", "AUC gain", "LogLoss", "AUC, new items",
    "AUC gain, new items",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A row of ours.

    Attributes:
        result: metrics of its runs.
        length: events that the model looks at.
        out_of_memory_gib: the limit that it ran into; None if it did not.
        entropies: of each walk's attention, nats; None for other models.
        new_items: metrics of the impressions whose item training has not seen; None if unknown.
    """

    result: RowResult
    length: str
    out_of_memory_gib: float | None = None
    entropies: list[float] | None = None
    new_items: RowResult | None = None


def write_family(
    folder: Path, name: str, table: FamilyTable, rows: Sequence[Measured], remark: str
) -> list[Path]:
    """Write `name`.md, .csv and .png into `folder`; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("md", "csv", "png")]
    head = ["model"]
    head += [f"{name}, ours" for name in (_OURS_WITH_IMAGES if table.images else _OURS)]
    head += [f"{name}, published" for name in table.printed]
    ours = _ours_with_images if table.images else _ours
    cells = [[row.result.row.label, *ours(row, rows[0]), *_printed(row)] for row in rows]
    _write_text(paths[0], table.title, remark, head, cells)
    _write_csv(paths[1], head, cells)
    _plot_family(paths[2], table, rows)
    return paths


def _ours_with_images(row: Measured, base: Measured) -> list[str]:
    """Our cells of a row, in the order of `_OURS_WITH_IMAGES`; gains are differences."""
    if row.out_of_memory_gib is not None and not row.result.metrics:
        return [row.length, f"out of memory (> {row.out_of_memory_gib:g} GiB)", *["-"] * 6]
    cells = [row.length]
    for name in ("gauc", "auc"):
        cells += [_plus_minus(row.result, name), _gain(row.result, base.result, name)]
    cells.append(_plus_minus(row.result, "logloss"))
    if row.new_items is None or base.new_items is None:
        return [*cells, "-", "-"]
    new = _plus_minus(row.new_items, "auc")
    return [*cells, new, _gain(row.new_items, base.new_items, "auc")]


def _gain(result: RowResult, base: RowResult, name: str) -> str:
    ours, theirs = result.mean(name), base.mean(name)
    if result is base or ours is None or theirs is None:
        return "-"
    return f"{ours - theirs:+.4f}"


def _ours(row: Measured, first: Measured) -> list[str]:
    """Our cells of a row, in the order of `_OURS`."""
    base = first.result
    if row.out_of_memory_gib is not None and not row.result.metrics:
        return [row.length, f"out of memory (> {row.out_of_memory_gib:g} GiB)", *["-"] * 5]
    figures = [_plus_minus(row.result, name) for name in ("auc", "gauc", "logloss")]
    auc, logloss = row.result.mean("auc"), row.result.mean("logloss")
    base_auc, base_logloss = base.mean("auc"), base.mean("logloss")
    gains = ["-", "-"]
    if row.result is not base and None not in {auc, logloss, base_auc, base_logloss}:
        gains = [
            f"{relative_auc_gain(auc, base_auc):+.2%}",  # type: ignore[arg-type] # none is None
            f"{logloss / base_logloss - 1:+.2%}",  # type: ignore[operator]
        ]
    entropies = "-" if row.entropies is None else ", ".join(f"{e:.2f}" for e in row.entropies)
    return [row.length, *figures, *gains, entropies or "-"]


def _plus_minus(result: RowResult, name: str) -> str:
    mean, deviation = result.mean(name), result.deviation(name)
    if mean is None:
        return "-"
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"


def _printed(row: Measured) -> list[str]:
    found = row.result.row
    return list(found.printed) if isinstance(found, FamilyRow) else []


def _plot_family(path: Path, table: FamilyTable, rows: Sequence[Measured]) -> None:
    """Ours and the first published AUC, in panels of their own: they are of different data."""
    labels = [row.result.row.label for row in rows]
    places = np.arange(len(labels))[::-1]
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(labels)), layout="constrained")
    ours, theirs = figure.subplots(1, 2, sharey=True)
    for row, place in zip(rows, places, strict=True):
        metric = "gauc" if table.images else "auc"
        mean = row.result.mean(metric)
        if mean is not None:
            bar = row.result.deviation(metric) or 0.0
            ours.errorbar(mean, place, xerr=bar, fmt="o", color=_BLUE, capsize=3)
        try:
            theirs.plot(float(_printed(row)[0]), place, "s", color=_ORANGE)
        except (IndexError, ValueError):  # a row without a printed number
            continue
    ours.set_yticks(places, labels)
    name = "GAUC" if table.images else "AUC"
    ours.set_xlabel(f"{name}, ours (bars: standard deviation over seeds)")
    theirs.set_xlabel(f"{table.printed[0]}, published, on other data")
    for axes in (ours, theirs):
        axes.grid(axis="x", color="#dddddd")
        axes.set_axisbelow(True)
    figure.suptitle(table.title)
    _save(figure, path)


def write_cost(folder: Path, name: str, costs: list[dict[str, Any]], remark: str) -> list[Path]:
    """IMN's table 2 (growth with the length) or figure 4 (every length), and their picture."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("md", "csv", "png")]
    if name == "imn-table2":
        title = "Complexity (IMN, table 2), and how forward time grew here"
        head = ["model", "paradigm", "complexity", "sequential operations", "longest path"]
        head += ["exponent of the length, ours"]
        cells = [
            [model, *PARADIGMS.get(model, ("-",) * 4), _exponent(model, costs)]
            for model in dict.fromkeys(cost["model"] for cost in costs)
        ]
    else:
        title = "Cost by length (IMN, figure 4)"
        head = ["model", "events", "forward ms, ours", "steps/s, ours", "memory MiB, ours"]
        head += ["forward ms, published, on an A100"]
        cells = [_cost_cells(cost) for cost in costs]
    _write_text(paths[0], title, remark, head, cells)
    _write_csv(paths[1], head, cells)
    _plot_cost(paths[2], costs)
    return paths


def _cost_cells(found: dict[str, Any]) -> list[str]:
    key = (found["model"], found["length"])
    cost = found["cost"]
    ours = ["out of memory"] * 3
    if cost is not None:
        ours = [
            f"{cost['forward_ms']:.2f}",
            f"{cost['steps_per_second']:.2f}",
            str(cost["memory_mib"]),
        ]
    return [found["model"], str(found["length"]), *ours, PRINTED_FORWARD_MS.get(key, "-")]


def _exponent(model: str, costs: list[dict[str, Any]]) -> str:
    """Slope of log time over log length, between 100 events and the longest that fitted."""
    times = {
        cost["length"]: cost["cost"]["forward_ms"]
        for cost in costs
        if cost["model"] == model and cost["cost"] is not None and cost["length"] >= 100
    }
    if len(times) < 2:
        return "-"
    low, high = min(times), max(times)
    return f"{math.log(times[high] / times[low]) / math.log(high / low):.2f}"


def _plot_cost(path: Path, costs: list[dict[str, Any]]) -> None:
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    parts = (
        ("forward_ms", "forward, ms", "log"),
        ("steps_per_second", "training, steps/s", "log"),
        ("memory_mib", "memory of a step, MiB", "linear"),
    )
    for axes, (part, label, scale) in zip(panels, parts, strict=True):
        for index, model in enumerate(dict.fromkeys(cost["model"] for cost in costs)):
            points = [
                (cost["length"], cost["cost"][part])
                for cost in costs
                if cost["model"] == model and cost["cost"] is not None
            ]
            if points:
                colour = _COLOURS[index % len(_COLOURS)]
                axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=model)
        axes.set_xlabel("events")
        axes.set_ylabel(label)
        axes.set_yscale(scale)
        axes.grid(color="#dddddd")
    panels[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def _write_text(
    path: Path, title: str, remark: str, head: list[str], cells: list[list[str]]
) -> None:
    lines = [f"# {title}", "", remark, "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in cells]
    lines += [
        "",
        "Published figures are on other data and machines: only their order compares.",
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def _write_csv(path: Path, head: list[str], cells: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([head, *cells])


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    # No date in the file: two runs of the same experiment give the same bytes.
    figure.savefig(path, dpi=150, metadata={"Software": None})
