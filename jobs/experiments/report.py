"""An experiment as Markdown, CSV and a picture.

Colours are from the Okabe-Ito palette, which people with any colour vision can tell apart; ours
and the published figures are in panels of their own, because they are of different data.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from uic.jobs.experiments.runs import RowResult

_BLUE: Final = "#0072B2"
_ORANGE: Final = "#E69F00"
_GREEN: Final = "#009E73"
_GREY: Final = "#666666"
METRICS: Final = ("auc", "gauc", "logloss")


def write_table(
    folder: Path, name: str, title: str, results: Sequence[RowResult], remark: str
) -> list[Path]:
    """Write `name`.md, .csv and .png into `folder`; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("md", "csv", "png")]
    paths[0].write_text(table_markdown(title, results, remark), encoding="utf-8")
    _write_csv(paths[1], results)
    _plot_table(paths[2], title, results)
    return paths


def table_markdown(title: str, results: Sequence[RowResult], remark: str) -> str:
    """The table for a person: mean ± standard deviation over the seeds."""
    columns = ["model", "AUC, ours", "GAUC, ours", "LogLoss, ours"]
    columns += [f"AUC, published, on {data}" for data in ("Taobao", "Amazon Books")]
    lines = [f"# {title}", "", remark, "", f"| {' | '.join(columns)} |", "|---" * 6 + "|"]
    for result in results:
        ours = [_plus_minus(result.mean(name), result.deviation(name)) for name in METRICS]
        published = result.row.published
        theirs = (
            ["-", "-"]
            if published is None
            else [_plus_minus(*published[:2], 5), _plus_minus(*published[2:], 5)]
        )
        lines.append(f"| {' | '.join([result.row.label, *ours, *theirs])} |")
    footnote = (
        "Published figures are on other data: only the order of rows can be compared. "
        "`-`: not run here, or not in the paper."
    )
    lines += ["", footnote, ""]
    return "\n".join(lines)


def _plus_minus(mean: float | None, deviation: float | None, digits: int = 4) -> str:
    if mean is None:
        return "-"
    if deviation is None:
        return f"{mean:.4f}"
    return f"{mean:.4f} ± {deviation:.{digits}f}"


def _write_csv(path: Path, results: Sequence[RowResult]) -> None:
    head = ["model", "repeats"]
    head += [f"{name}_{part}" for name in METRICS for part in ("mean", "std")]
    head += [
        f"published_{data}_{part}" for data in ("taobao", "amazon") for part in ("mean", "std")
    ]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(head)
        for result in results:
            ours = [
                value for name in METRICS for value in (result.mean(name), result.deviation(name))
            ]
            theirs = result.row.published or ("", "", "", "")
            cells = ["" if value is None else value for value in ours]
            writer.writerow([result.row.label, len(result.metrics), *cells, *theirs])


def _plot_table(path: Path, title: str, results: Sequence[RowResult]) -> None:
    labels = [result.row.label for result in results]
    places = np.arange(len(labels))[::-1]
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(labels)), layout="constrained")
    ours, theirs = figure.subplots(1, 2, sharey=True)
    _dots(
        ours,
        places,
        [(result.mean("auc"), result.deviation("auc")) for result in results],
        colour=_BLUE,
        marker="o",
        name="ours",
    )
    for name, part, colour, marker in (
        ("Taobao", slice(0, 2), _ORANGE, "s"),
        ("Amazon Books", slice(2, 4), _GREEN, "^"),
    ):
        figures = [
            (None, None) if result.row.published is None else tuple(result.row.published[part])
            for result in results
        ]
        _dots(theirs, places, figures, colour=colour, marker=marker, name=name)
    ours.set_yticks(places, labels)
    ours.set_xlabel("AUC, ours (bars: standard deviation over seeds)")
    theirs.set_xlabel("AUC, published, on other data")
    theirs.legend(loc="best", frameon=False)
    figure.suptitle(title)
    _save(figure, path)


def _dots(
    axes: Any,
    places: NDArray[np.int64],
    figures: Sequence[tuple[Any, ...]],
    *,
    colour: str,
    marker: str,
    name: str,
) -> None:
    """Means as dots with bars; rows without a figure are left empty."""
    shown = [
        (mean, deviation or 0.0, place)
        for (mean, deviation), place in zip(figures, places, strict=True)
        if mean is not None
    ]
    if shown:
        means, deviations, rows = zip(*shown, strict=True)
        axes.errorbar(means, rows, xerr=deviations, fmt=marker, color=colour, capsize=3, label=name)
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)


def write_slots(
    folder: Path, name: str, shares: dict[str, NDArray[np.float64]], remark: str
) -> list[Path]:
    """The slot-utilisation vectors and their picture (MIMN, figure 6); their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("md", "csv", "png")]
    slots = max(len(values) for values in shares.values())
    numbers = range(1, slots + 1)
    lines = ["# Share of writes that each slot receives (MIMN, figure 6)", "", remark, ""]
    lines.append("| slot | " + " | ".join(str(number) for number in numbers) + " |")
    lines.append("|---|" + "---|" * slots)
    for label, values in shares.items():
        cells = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {label} | {cells} |")
    paths[0].write_text("\n".join([*lines, ""]), encoding="utf-8")
    with paths[1].open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["model", *[f"slot_{number}" for number in numbers]])
        for label, values in shares.items():
            writer.writerow([label, *values.tolist()])
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(shares)
    for index, (label, values) in enumerate(shares.items()):
        colour, hatch = ((_ORANGE, ""), (_BLUE, "//"))[index % 2]
        left = np.arange(slots) + (index - (len(shares) - 1) / 2) * width
        axes.bar(left, values, width, label=label, color=colour, hatch=hatch, edgecolor="white")
    axes.axhline(1 / slots, color=_GREY, linestyle="--", linewidth=1, label="even")
    axes.set_xticks(np.arange(slots), [str(number) for number in numbers])
    axes.set_xlabel("slot")
    axes.set_ylabel("share of writes")
    axes.legend(frameon=False)
    _save(figure, paths[2])
    return paths


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    # No date in the file: two runs of the same experiment give the same bytes.
    figure.savefig(path, dpi=150, metadata={"Software": None})
