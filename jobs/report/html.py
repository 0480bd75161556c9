"""Sections of text, tables and pictures in one HTML file without any other."""

from collections.abc import Sequence
from html import escape
from typing import Final

from uic.jobs.report import figures

_CSS: Final = """
body{font:16px/1.5 system-ui,"DejaVu Sans",sans-serif;color:#1a1a1a;margin:0;background:#fafafa}
main{max-width:56rem;margin:0 auto;padding:1.5rem}
h1{font-size:1.7rem;margin:.2rem 0}h2{font-size:1.25rem;margin:2.4rem 0 .4rem}
p{margin:.4rem 0 .8rem;max-width:46rem}figure{margin:1rem 0;background:#fff;padding:.8rem;
border:1px solid #e2e2e2;border-radius:6px}figure svg{width:100%;height:auto;display:block}
figcaption{color:#555;font-size:.9rem;margin-top:.3rem}
table{border-collapse:collapse;background:#fff;margin:.6rem 0}
th,td{padding:.3rem .8rem;border-bottom:1px solid #e2e2e2;text-align:right}
th:first-child,td:first-child{text-align:left}
.cards{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}
.card{background:#fff;border:1px solid #e2e2e2;border-radius:6px;padding:.7rem 1rem;min-width:9rem}
.card b{display:block;font-size:1.45rem}.card span{color:#555;font-size:.85rem}
.note{border-left:4px solid #E69F00;padding-left:.6rem}.wide{overflow-x:auto}
code{background:#eee;padding:.1rem .3rem;border-radius:3px}
"""


class Page:
    """Sections in order; each figure has a name that its ids begin with."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def section(self, title: str, text: str) -> None:
        """A heading and a paragraph."""
        self._parts.append(f"<h2>{escape(title)}</h2><p>{escape(text)}</p>")

    def figure(self, name: str, svg: str, caption: str) -> None:
        """A picture with what it shows, in words too."""
        own = figures.with_own_ids(svg, name)
        labelled = own.replace(
            "<svg ", f'<svg role="img" aria-label="{escape(caption, quote=True)}" ', 1
        )
        self._parts.append(
            f'<figure id="{name}">{labelled}<figcaption>{escape(caption)}</figcaption></figure>'
        )

    def note(self, text: str) -> None:
        """A line that a reader should not miss."""
        self._parts.append(f'<p class="note">{escape(text)}</p>')

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; the first column is text, the others numbers."""
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        table = f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
        self._parts.append(f'<div class="wide">{table}</div>')

    def cards(self, cards: Sequence[tuple[str, str]]) -> None:
        """The few numbers to remember."""
        inner = "".join(
            f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
            for value, label in cards
        )
        self._parts.append(f'<div class="cards">{inner}</div>')

    def html(self, title: str) -> str:
        """The whole file."""
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            '<link rel="icon" href="data:,">'
            f"<title>{escape(title)}</title><style>{_CSS}</style></head>"
            f"<body><main><h1>{escape(title)}</h1>{''.join(self._parts)}</main></body></html>\n"
        )


def number(value: float | None) -> str:
    """Four digits, or a dash."""
    return "-" if value is None else f"{value:.4f}"
