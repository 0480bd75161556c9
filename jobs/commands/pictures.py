"""Bars on a terminal, and the same as a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.config.console import ERR, OUT

if TYPE_CHECKING:
    from uic.jobs.report.profiles import Bars

HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the pictures as a page, too.")
]


def show_bars(title: str, pictures: "Sequence[Bars]", html: Path | None) -> None:
    """Print pictures, and write them to a file if one is named."""
    for picture in pictures:
        OUT.print("\n".join([*picture.lines(), ""]), markup=False)
    if html is not None:
        from uic.jobs.report.profile_page import page_of
        from uic.models.published import write_bytes_atomically

        write_bytes_atomically(html, page_of(title, pictures).encode())
        ERR.print(f"written to {html}", markup=False)
