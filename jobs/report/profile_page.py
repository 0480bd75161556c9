"""The pictures of `uic log show` and `uic samples show` as a page."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from uic.jobs.report import figures
from uic.jobs.report.html import Page
from uic.jobs.report.profiles import Bars


def page_of(title: str, pictures: Sequence[Bars]) -> str:
    """The pictures as one HTML file without any other."""
    page = Page()
    for one in pictures:
        page.figure(f"figure-{one.name}", figure_of(one), f"{one.title}.")
    return page.html(title)


def figure_of(picture: Bars) -> str:
    """A bar a row, from the top: its label, its value, and the value in words; SVG."""

    def paint(axes: Axes) -> None:
        places = np.arange(len(picture.rows))[::-1]
        axes.barh(places, [value for _, value, _ in picture.rows], 0.75, color=figures.BLUE)
        for place, (_, value, words) in zip(places, picture.rows, strict=True):
            axes.text(value, place, f" {words}", va="center", fontsize=9)
        axes.set_yticks(places, [label for label, _, _ in picture.rows])
        axes.set_xlabel(picture.unit)
        axes.margins(x=0.15)

    return figures.draw(paint, 1.0 + 0.24 * len(picture.rows))
