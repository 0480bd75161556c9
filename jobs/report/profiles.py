"""Pictures of a log and of samples: bars, for a terminal in plain characters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from uic.pipelines.log.profile import LogProfile
    from uic.pipelines.samples.profile import SamplesProfile

# More days than this are drawn some days a bar.
_MOST_BARS: Final = 31
_BAR_WIDTH: Final = 40
_TOP_SHARES: Final = (0.01, 0.05, 0.1, 0.25, 0.5)
_GAPS: Final = (
    ("under 1 s", 1.0),
    ("1 s to 1 min", 60.0),
    ("1 min to 1 h", 3600.0),
    ("1 h to 1 day", 86_400.0),
    ("1 day to 7 days", 604_800.0),
    ("7 days and more", np.inf),
)


@dataclass(frozen=True)
class Bars:
    """One picture.

    Attributes:
        name: of the figure on a page.
        title: what it shows.
        unit: of the values.
        rows: (label, value, the value in words), in order.
    """

    name: str
    title: str
    unit: str
    rows: Sequence[tuple[str, float, str]]

    def lines(self) -> list[str]:
        """For a terminal: a line a bar, of ASCII characters."""
        top = max((value for _, value, _ in self.rows), default=0) or 1
        wide = max((len(label) for label, _, _ in self.rows), default=0)
        bars = [
            f"  {label:<{wide}}  {'#' * round(_BAR_WIDTH * value / top):<{_BAR_WIDTH}}  {words}"
            for label, value, words in self.rows
        ]
        return [f"{self.title} ({self.unit})", *(bars or ["  none"])]


def log_bars(profile: "LogProfile") -> list[Bars]:
    """Pictures of a log."""
    share = "" if profile.gap_share == 1 else f", of {profile.gap_share:.1%} of the users"
    return [
        _days("behaviors", "behaviours a day", "events", profile.behaviors),
        *(
            [_days("impressions", "impressions a day", "impressions", profile.impressions)]
            if profile.impressions
            else []
        ),
        _lengths("users", "users by events in the log", "users", profile.of_users),
        _skew("items", "events on the most popular items", profile.of_items),
        _gaps(f"time between two events of a user{share}", profile.gaps_seconds),
    ]


def samples_bars(profile: "SamplesProfile") -> list[Bars]:
    """Pictures of samples."""
    rates = []
    for days in _spans(list(profile.impressions)):
        shown = sum(profile.impressions[day] for day in days)
        rate = sum(profile.clicks[day] for day in days) / max(shown, 1)
        rates.append((days[0], rate, f"{rate:.2%}"))
    return [
        _days("impressions", "impressions a day", "impressions", profile.impressions),
        Bars("clicks", "click rate a day", "clicks of impressions", rates),
        _lengths("histories", "impressions by events seen", "impressions", profile.histories),
        _skew("items", "impressions of the items shown most", profile.of_items),
    ]


def _spans(days: list[str]) -> list[list[str]]:
    """Days, some a bar where there are many."""
    step = -(-len(days) // _MOST_BARS) or 1
    return [days[at : at + step] for at in range(0, len(days), step)]


def _days(name: str, title: str, unit: str, counts: dict[str, int]) -> Bars:
    spans = _spans(list(counts))
    step = len(spans[0]) if spans else 1
    if step > 1:
        title = f"{title}, mean of {step} days from each"
    means = [(days[0], sum(counts[day] for day in days) / len(days)) for days in spans]
    return Bars(name, title, unit, [(day, mean, f"{mean:,.0f}") for day, mean in means])


def _lengths(name: str, title: str, unit: str, values: NDArray[np.int64]) -> Bars:
    """How many have none, 1, 2 to 3, 4 to 7 and so on, by powers of two."""
    if not len(values):
        return Bars(name, title, unit, [])
    edges = [0, *(2**at for at in range(int(values.max()).bit_length() + 1))]
    counts = np.histogram(values, np.array(edges) - 0.5)[0].tolist()
    rows = [
        (f"{low:,}" if high - low == 1 else f"{low:,} to {high - 1:,}", count)
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    first = next(at for at, (_, count) in enumerate(rows) if count)
    return Bars(
        name,
        f"{title}; the median has {int(np.median(values)):,}",
        unit,
        [(label, count, f"{count:,}") for label, count in rows[first:]],
    )


def _skew(name: str, title: str, counts: NDArray[np.int64]) -> Bars:
    total = counts.sum()
    rows = []
    for share in _TOP_SHARES if total else ():
        top = max(round(len(counts) * share), 1)
        held = float(counts[-top:].sum() / total)
        rows.append((f"top {share:.0%}", held, f"{held:.1%} on {top:,} items"))
    return Bars(name, f"{title}, of {len(counts):,}", "share of all", rows)


def _gaps(title: str, seconds: NDArray[np.float64]) -> Bars:
    edges = np.array([-np.inf, *(most for _, most in _GAPS)])
    at = np.searchsorted(edges, seconds, side="right") - 1
    counts = np.bincount(at, minlength=len(_GAPS))[: len(_GAPS)].tolist()
    total = max(len(seconds), 1)
    rows = [
        (label, count, f"{count:,} ({count / total:.1%})")
        for (label, _), count in zip(_GAPS, counts, strict=True)
    ]
    return Bars("gaps", title, "gaps", rows if len(seconds) else [])
