"""The report's pictures: numbers in, SVG text out.

Colours are Okabe and Ito's, which people with any colour vision tell apart; what a colour says is
also said by a label, a marker or a place. Every axis has its unit.
"""

import io
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, Final

import matplotlib as mpl
import matplotlib.ticker as ticker_of
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
SERIES: Final = (BLUE, ORANGE, GREEN, RED, PINK, SKY)
MEMORY_COLOURS: Final = {"live": GREEN, "midnight": BLUE, "none": ORANGE}
MEMORY_LABELS: Final = {
    "live": "live memory",
    "midnight": "midnight's memory",
    "none": "no memory",
}
_MARKERS: Final = ("o", "s", "^", "D", "v", "P")
_LINES: Final = ("-", "--", ":", "-.")
_WIDTH: Final = 8.0
_STYLE: Final = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "svg.fonttype": "none",
    "svg.hashsalt": "uic",
    "legend.frameon": False,
}


def draw(paint: Callable[[Axes], None], height: float = 3.2) -> str:
    """One picture as SVG, the same bytes for the same numbers."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        paint(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def with_own_ids(svg: str, name: str) -> str:
    """The same picture with ids of its own: several pictures share one page."""
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)


def _legend(axes: Axes, *labels: str) -> None:
    """Above the picture, where no line can run through it."""
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "ncols": 2}
    if labels:
        axes.legend(labels, **place)
    else:
        axes.legend(**place)


def log_days(log: dict[str, Any]) -> str:
    """Behaviours and impressions a day."""

    def paint(axes: Axes) -> None:
        days = list(log["days"])
        places = np.arange(len(days))
        rows = log["days"].values()
        axes.bar(places - 0.2, [row["behaviors"] for row in rows], 0.4, color=BLUE)
        axes.bar(places + 0.2, [row["impressions"] for row in rows], 0.4, color=ORANGE)
        _legend(axes, "behaviours", "impressions")
        step = max(1, len(days) // 12)
        axes.set_xticks(places[::step], [day[5:] for day in days[::step]], rotation=45)
        axes.set_xlabel(f"day (month-day, {log['time_zone']})")
        axes.set_ylabel("rows a day")

    return draw(paint)


def training(models: list[dict[str, Any]]) -> str:
    """Training loss by step."""

    def paint(axes: Axes) -> None:
        for at, model in enumerate(models):
            curve = model["curve"]
            axes.plot(
                [point["step"] for point in curve],
                [point["loss"] for point in curve],
                **_line(at),
                markevery=max(1, len(curve) // 8),
                markersize=4,
                label=_name(model),
            )
        axes.set_xlabel("training step (batches)")
        axes.set_ylabel("cross-entropy of the batch (nats)")
        _legend(axes)

    return draw(paint)


def validation(models: list[dict[str, Any]]) -> str:
    """AUC of the validation days after each epoch; a ring is the epoch that was kept."""

    def paint(axes: Axes) -> None:
        for at, model in enumerate(models):
            chosen = model["validation"]
            found = np.array([np.nan if one is None else one for one in chosen["auc"]])
            epochs = np.arange(1, len(found) + 1)
            axes.plot(epochs, found, label=_name(model), **_line(at), markersize=4)
            kept = chosen["kept_epoch"]
            axes.plot(kept, found[kept - 1], "o", color=BLACK, markersize=10, fillstyle="none")
        axes.xaxis.set_major_locator(ticker_of.MaxNLocator(integer=True))
        axes.set_xlabel("epoch (passes over the training days)")
        axes.set_ylabel("AUC of the validation days")
        _legend(axes)

    return draw(paint)


def calibration(models: list[dict[str, Any]]) -> str:
    """What each tenth of the test impressions was said to be, and what came true."""

    def paint(axes: Axes) -> None:
        top = max(max(tenth[:2]) for model in models for tenth in model["test"]["deciles"])
        axes.plot((0, top), (0, top), color=BLACK, linewidth=1, linestyle="--", label="as said")
        for at, model in enumerate(models):
            said, found, _ = zip(*model["test"]["deciles"], strict=True)
            axes.plot(said, found, label=_name(model), **_line(at), markersize=4)
        axes.set_xlabel("probability said, mean of a tenth of the impressions (share)")
        axes.set_ylabel("clicked of them (share)")
        _legend(axes)

    return draw(paint, 3.6)


def _name(model: dict[str, Any]) -> str:
    return f"{model['model']}/{model['version']}"


def _line(at: int) -> dict[str, Any]:
    """How the line with this number looks, so that colour alone does not tell it."""
    return {
        "color": SERIES[at % len(SERIES)],
        "linestyle": _LINES[at // len(SERIES) % len(_LINES)],
        "marker": _MARKERS[at % len(_MARKERS)],
    }


def model_table(models: list[dict[str, Any]]) -> str:
    """AUC and GAUC of the test day."""

    def paint(axes: Axes) -> None:
        rows = [model for model in models if model["test"]]
        places = np.arange(len(rows))[::-1]
        for offset, name, colour in ((0.2, "auc", BLUE), (-0.2, "gauc", ORANGE)):
            values = np.array([row["test"][name] or 0.0 for row in rows])
            axes.barh(places + offset, values, 0.38, color=colour)
            for place, value in zip(places, values, strict=True):
                axes.text(0.01, place + offset, f"{value:.4f}", va="center", color="white")
        for place, row in zip(places, rows, strict=True):
            if row["interval"][0] is not None:
                axes.plot(row["interval"], (place + 0.2,) * 2, color=BLACK, linewidth=1.5)
        axes.axvline(0.5, color=BLACK, linewidth=1, linestyle="--")
        axes.set_xlim(0, 1)
        axes.set_yticks(places, [f"{row['model']}/{row['version']}" for row in rows])
        names = {BLUE: "AUC", ORANGE: "GAUC (AUC within each user)"}
        bars = [Patch(color=colour, label=name) for colour, name in names.items()]
        axes.legend(handles=bars, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
        axes.set_xlabel("area under the ROC curve (0.5 = chance)")

    return draw(paint, 1.4 + 0.55 * len(models))


def real_time(live: dict[str, Any]) -> str:
    """AUC along the replayed day, with each kind of memory."""

    def paint(axes: Axes) -> None:
        rows = live["auc_by_hour"]
        hours = [row["hour"] for row in rows]
        for at, (name, colour) in enumerate(MEMORY_COLOURS.items()):
            whole = live["memory"][name]["auc"]
            values = [np.nan if row[name] is None else row[name] for row in rows]
            axes.plot(
                hours,
                values,
                color=colour,
                marker=_MARKERS[at],
                label=f"{MEMORY_LABELS[name]}: {whole:.4f} over the day",
            )
        axes.set_xlabel(f"hours since the first impression of {live['day']} (hours)")
        axes.set_ylabel("AUC of the next hours' impressions")
        _legend(axes)

    return draw(paint, 3.4)


def slots(rows: list[dict[str, Any]]) -> str:
    """Share of writing by slot."""

    def paint(axes: Axes) -> None:
        width = 0.8 / len(rows)
        for at, row in enumerate(rows):
            share = np.sort(np.array(row["share"]))[::-1] * 100
            places = np.arange(len(share)) + (at - (len(rows) - 1) / 2) * width
            weight = row["loss_weight"]
            label = f"{row['bundle']} (λ = {weight:g})"
            axes.bar(places, share, width, color=SERIES[at % len(SERIES)], label=label)
        slots_of = len(rows[0]["share"])
        axes.axhline(100 / slots_of, color=BLACK, linewidth=1, linestyle="--")
        axes.text(slots_of - 0.5, 100 / slots_of, "even", va="bottom", ha="right")
        axes.set_xticks(np.arange(slots_of), [str(at + 1) for at in range(slots_of)])
        axes.set_xlabel("slot, the most used first (rank)")
        axes.set_ylabel("share of writing (%)")
        _legend(axes)

    return draw(paint)


def life(found: dict[str, Any]) -> str:
    """How much each channel moved at each event."""

    def paint(axes: Axes) -> None:
        changes = np.array(found["channel_changes"]).T
        image = axes.imshow(changes, aspect="auto", cmap="cividis", interpolation="nearest")
        axes.figure.colorbar(image, ax=axes, label="change (Euclidean norm)")
        times = found["times_ms"]
        step = max(1, len(times) // 6)
        at = np.arange(0, len(times), step)
        labels = [
            datetime.fromtimestamp(times[place] / 1000, UTC).strftime("%m-%d %H:%M") for place in at
        ]
        axes.set_xticks(at, labels)
        axes.set_yticks(np.arange(len(changes)), [str(row + 1) for row in range(len(changes))])
        axes.grid(visible=False)
        axes.set_xlabel(f"the last {len(times)} events, in log order (event time, UTC)")
        axes.set_ylabel("channel (number)")

    return draw(paint, 3.0)


def histogram(values: NDArray[np.float64], unit: str, what: str, percentiles: list[str]) -> str:
    """Values on a logarithmic axis with their percentiles."""

    def paint(axes: Axes) -> None:
        kept = np.maximum(values, 1e-6)
        edges = np.geomspace(kept.min() * 0.98, kept.max() * 1.02, 40)
        axes.hist(kept, edges.tolist(), color=SKY, edgecolor=BLUE, linewidth=0.6)
        axes.set_xscale("log")
        top = axes.get_ylim()[1]
        for at, name in enumerate(percentiles):
            value = float(np.percentile(values, float(name)))
            axes.axvline(value, color=RED, linewidth=1.2, linestyle=("-", "--", ":")[at % 3])
            axes.text(value, top * (0.95 - 0.11 * at), f" p{name} {value:.3g} {unit}", color=BLACK)
        axes.set_xlabel(f"{what} ({unit}, logarithmic)")
        axes.set_ylabel("how many (count)")
        ticks = ticker_of.LogLocator(subs=(1.0, 2.0, 5.0), numticks=12)
        axes.xaxis.set_major_locator(ticks)
        axes.xaxis.set_major_formatter(ticker_of.FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(ticker_of.NullFormatter())

    return draw(paint)


def bytes_per_user(store: dict[str, Any]) -> str:
    """A record, what Redis needs for it, and the paper's figure."""

    def paint(axes: Axes) -> None:
        rows = [
            ("record", store["record_bytes"], GREEN),
            ("in Redis, key included", store["redis_bytes_per_user"], BLUE),
            ("MIMN's production system", store["paper_bytes_per_user"], ORANGE),
        ]
        for place, (_, value, colour) in enumerate(reversed(rows)):
            axes.barh(place, value, 0.6, color=colour)
            axes.text(value, place, f" {value:,.0f}", va="center")
        axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
        axes.set_xlabel("bytes a user")
        axes.margins(x=0.12)

    return draw(paint, 1.9)


def stages(seconds: dict[str, float]) -> str:
    """How long each stage of the demo took."""

    def paint(axes: Axes) -> None:
        names = list(seconds)
        places = np.arange(len(names))[::-1]
        axes.barh(places, list(seconds.values()), 0.7, color=SKY)
        for place, value in zip(places, seconds.values(), strict=True):
            axes.text(value, place, f" {value:.1f}", va="center", fontsize=9)
        axes.set_yticks(places, names)
        axes.set_xlabel("seconds, start of the process included")
        axes.margins(x=0.1)

    return draw(paint, 1.0 + 0.24 * len(seconds))


def drift(lines: dict[str, list[tuple[date, float]]]) -> str:
    """How far each day is from the days before it, a line a feature."""

    def paint(axes: Axes) -> None:
        for at, (name, days) in enumerate(lines.items()):
            axes.plot(
                [day.isoformat() for day, _ in days],
                [psi for _, psi in days],
                color=SERIES[at % len(SERIES)],
                marker=_MARKERS[at % len(_MARKERS)],
                markersize=4,
                label=name,
            )
        axes.xaxis.set_major_locator(ticker_of.MaxNLocator(6))
        axes.set_xlabel("day")
        axes.set_ylabel("PSI to the days before")
        axes.set_ylim(bottom=0)
        _legend(axes)

    return draw(paint)
