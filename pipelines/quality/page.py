"""Data Docs of a gate: one HTML file that needs no network.

Great Expectations renders the sections; its own page around them loads styles, scripts and a logo
from six hosts, so the page here is ours: one file with its style inside, which can be read
offline, mailed and kept. Failed checks come first, each with its examples.
"""

from html import escape
from pathlib import Path
from typing import Any, Final

from uic.models.published import write_bytes_atomically
from uic.pipelines.quality.gates import CheckResult, GateReport

_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.4rem 0 1rem;width:100%}
th,td{border:1px solid #d5d9de;padding:.3rem .6rem;text-align:left;vertical-align:top;
overflow-wrap:anywhere}
th{background:#f3f5f7}h5{font-size:1.05rem;margin:1.4rem 0 .2rem}h6{margin:.6rem 0 .2rem}
.text-danger,.failed{color:#b3261e}.text-success,.passed{color:#1b7a3d}
.fa-times::before{content:"\\2716"}.fa-check-circle::before{content:"\\2714"}
i{font-style:normal}code{font-size:.9em}.scroll{overflow-x:auto}
@media(prefers-color-scheme:dark){body{background:#16181b;color:#ddd}th{background:#24282d}
th,td{border-color:#3a3f45}.text-danger,.failed{color:#ff8a80}.text-success,.passed{color:#7ddc9a}}
"""


def write_page(folder: Path, report: GateReport) -> Path:
    """Write `folder/<name>.html`, in one rename.

    Returns:
        Its path. The same report gives the same bytes.
    """
    path = folder / f"{report.name.replace(' ', '-')}.html"
    write_bytes_atomically(path, page_html(report).encode())
    return path


def page_html(report: GateReport) -> str:
    """The page: verdict, failed checks with examples, every expectation, the metrics."""
    failed = report.failed
    judged = len(report.results)
    word = (
        f'<strong class="failed">{len(failed)} of {judged} expectations failed</strong>'
        if failed
        else f'<strong class="passed">all {judged} expectations passed</strong>'
    )
    frame = report.frame.to_html(
        index=False, border=0, na_rep="", float_format=lambda value: f"{value:,.6g}"
    )
    title = escape(f"Quality of {report.name}")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{escape(report.subject)}, {report.rows:,} rows: {word}.</p>"
        + "".join(_failed_html(result) for result in failed)
        + f"<h2>Expectations</h2>{_sections_html(report)}"
        + f'<h2>Metrics</h2><div class="scroll">{frame}</div></body></html>\n'
    )


def _failed_html(result: CheckResult) -> str:
    parts = [
        f'<h2 class="failed">{escape(result.check.metric)}</h2><p>{escape(result.sentence())}</p>'
    ]
    for example in result.examples:
        parts.append('<div class="scroll"><table><tr>')
        parts += [f"<th>{escape(str(name))}</th>" for name in example]
        parts.append("</tr><tr>")
        parts += [f"<td>{escape(str(value))}</td>" for value in example.values()]
        parts.append("</tr></table></div>")
    return "".join(parts)


def _sections_html(report: GateReport) -> str:
    """Great Expectations' own rendering of the validation, section by section."""
    from great_expectations.render.renderer import (  # noqa: PLC0415 - seconds; see `suite`
        ValidationResultsPageRenderer,
    )
    from great_expectations.render.view import DefaultJinjaSectionView  # noqa: PLC0415

    document = ValidationResultsPageRenderer(run_info_at_end=True).render(
        report.judgement.validation
    )
    view = DefaultJinjaSectionView()
    # The first section is an overview (said above) and the last one versions of the run.
    sections: list[dict[str, Any]] = [part.to_json_dict() for part in document.sections]
    return "".join(
        view.render({"section": section, "section_loop": {"index": at}})
        for at, section in enumerate(sections[1:-1])
    )
