"""The page of `uic features check`: each feature beside the data, in one file."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from uic.jobs.report import figures
from uic.jobs.report.html import Page
from uic.models.published import write_bytes_atomically

if TYPE_CHECKING:
    from uic.pipelines.quality.feature_check import FeatureReport

PAGE_NAME: Final = "features.html"


def write_page(folder: Path, reports: "list[FeatureReport]") -> Path:
    """Write the page; its path."""
    page = Page()
    broken = [one for one in reports if one.faults]
    remarks = sum(len(one.remarks) for one in reports)
    page.cards(
        [
            (str(len(reports)), "features"),
            (str(len(broken)), "cannot be used"),
            (str(remarks), "remarks"),
        ]
    )
    for one in broken:
        page.note(f"{one.key} cannot be used: {one.faults[0]}")
    page.section(
        "Coverage",
        "ids: the share of the log's users or items that ever have a value. shown: the share of "
        "impressions, as samples will join them; the others get the default, or count as missing, "
        "which a model tells apart from all values. kinds: different categories. PSI: of the day "
        "that differs most from the days before it.",
    )
    page.table(HEAD, [row_of(one) for one in reports])
    page.section(
        "Drift",
        "Each day held against all days before it (population stability index): below 0.1 is "
        "calm, above 0.25 another population. New categories are those that no day before had.",
    )
    drifting = sorted((one for one in reports if one.drift), key=_worst, reverse=True)
    if drifting:
        lines = {one.key: [(day.day, day.psi) for day in one.drift] for one in drifting[:6]}
        svg = figures.drift(lines)
        page.figure("drift", svg, "The features that drift most, by day.")
    for one in reports:
        page.section(one.key, f"{one.type}, from {one.source}")
        for text in [*one.faults, *one.remarks]:
            page.note(text)
        if one.top:
            rows = [[text, f"{share:.1%}"] for text, share in one.top]
            page.table(["most frequent", "of impressions"], rows)
        if one.quantiles:
            page.table(
                ["quantile", *one.quantiles],
                [["value", *(f"{value:.4g}" for value in one.quantiles.values())]],
            )
    path = folder / PAGE_NAME
    write_bytes_atomically(path, page.html("Features beside the data").encode())
    return path


HEAD: Final = ("feature", "type", "ids", "shown", "default", "kinds", "PSI")


def row_of(one: "FeatureReport") -> list[str]:
    """A feature in a line, of the page and of the terminal."""
    return [
        one.key,
        one.type,
        "-" if one.covered is None else f"{one.covered:.1%}",
        f"{one.coverage:.1%}",
        "-" if one.default is None else str(one.default),
        "-" if one.categories is None else f"{one.categories:,}",
        f"{_worst(one):.2f}" if one.drift else "-",
    ]


def _worst(one: "FeatureReport") -> float:
    return max(day.psi for day in one.drift)
