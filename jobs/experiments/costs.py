"""What a request costs by the length of its history: IMN's table 2 and figure 4."""

import math
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from uic.jobs.config.console import ERR
from uic.jobs.experiments.report import COLOURS, save_figure, write_cells
from uic.jobs.experiments.sequence_cost import Cost, measure
from uic.jobs.experiments.tables import COSTS

GROWTH_TABLE = "imn-table2"


@dataclass(frozen=True)
class MeasuredCost:
    """A model at one length; no cost where it ran out of memory."""

    model: str
    length: int
    cost: Cost | None


def cost_table(
    folder: Path, name: str, models: Sequence[str], lengths: Sequence[int], limit_gib: float
) -> list[Path]:
    """Measure and write a table of costs; its paths, Markdown first.

    Args:
        folder: where to write.
        name: in `COSTS.titles`.
        models: in the catalogue.
        lengths: events of the history.
        limit_gib: memory that a model may take, 0 for no limit.
    """
    # One fresh process for each model and length: peaks do not add up, limits do not leak.
    context = multiprocessing.get_context("spawn")
    costs = []
    for model in models:
        for length in lengths:
            with context.Pool(1) as pool:
                cost = pool.apply(measure, (model, length, limit_gib))
            ERR.print(f"{model}, {length} events: {cost or 'out of memory'}", markup=False)
            costs.append(MeasuredCost(model, length, cost))
    remark = f"200 candidates over one history; at most {limit_gib:g} GiB a model, one thread."
    return write_costs(folder, name, costs, remark)


def write_costs(folder: Path, name: str, costs: Sequence[MeasuredCost], remark: str) -> list[Path]:
    """Growth with the length (table 2) or every length (figure 4), and their picture."""
    models = list(dict.fromkeys(cost.model for cost in costs))
    if name == GROWTH_TABLE:
        head = ["model", "paradigm", "complexity", "sequential operations", "longest path"]
        head += ["exponent of the length, ours"]
        cells = [
            [model, *COSTS.complexity.get(model, ["-"] * 4), _exponent(model, costs)]
            for model in models
        ]
    else:
        head = ["model", "events", "forward ms, ours", "steps/s, ours", "memory MiB, ours"]
        head += ["forward ms, published, on an A100"]
        cells = [_cells(cost) for cost in costs]
    table = [head, *cells]
    paths = write_cells(folder, name, (COSTS.titles[name], remark), table, table)
    return [*paths, save_figure(_figure(costs, models), folder / f"{name}.png")]


def _cells(measured: MeasuredCost) -> list[str]:
    printed = COSTS.forward_ms.get(measured.model, {}).get(measured.length, "-")
    ours = ["out of memory"] * 3
    if (cost := measured.cost) is not None:
        ours = [f"{cost.forward_ms:.2f}", f"{cost.steps_per_second:.2f}", str(cost.memory_mib)]
    return [measured.model, str(measured.length), *ours, printed]


def _exponent(model: str, costs: Sequence[MeasuredCost]) -> str:
    """Slope of log time over log length, between 100 events and the longest that fitted."""
    times = {
        measured.length: measured.cost.forward_ms
        for measured in costs
        if measured.model == model and measured.cost is not None and measured.length >= 100
    }
    if len(times) < 2:
        return "-"
    low, high = min(times), max(times)
    return f"{math.log(times[high] / times[low]) / math.log(high / low):.2f}"


def _figure(costs: Sequence[MeasuredCost], models: Sequence[str]) -> Figure:
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    parts = (
        ("forward_ms", "forward, ms", "log"),
        ("steps_per_second", "training, steps/s", "log"),
        ("memory_mib", "memory of a step, MiB", "linear"),
    )
    for axes, (part, label, scale) in zip(panels, parts, strict=True):
        for index, model in enumerate(models):
            points = [
                (measured.length, getattr(measured.cost, part))
                for measured in costs
                if measured.model == model and measured.cost is not None
            ]
            if points:
                colour = COLOURS[index % len(COLOURS)]
                axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=model)
        axes.set_xlabel("events")
        axes.set_ylabel(label)
        axes.set_yscale(scale)
        axes.grid(color="#dddddd")
    panels[0].legend(frameon=False, fontsize=8)
    return figure
