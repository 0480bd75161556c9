"""Run every benchmark, one after the other, and write the table of docs/results.md.

    make bench            # or: python benchmarks/all.py [--quick] [NAME ...]

Each script prints one JSON line; the newest line of each is kept in docs/benchmarks.jsonl, so that
a run of one benchmark renews one row. The table stands between two markers of docs/results.md.
"""

import json
import subprocess
import sys
from pathlib import Path

from harness import arguments, say

HERE = Path(__file__).parent
LINES = HERE.parent / "docs" / "benchmarks.jsonl"
RESULTS = HERE.parent / "docs" / "results.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
# The race has a table of its own in docs/results.md, one run a data set.
NOT_BENCHMARKS = {"all", "harness", "load_test", "running_stream", "worth"}


def run(name: str, *, quick: bool) -> dict:
    """The JSON line of one benchmark, in a process of its own."""
    command = [sys.executable, str(HERE / f"{name}.py"), *(["--quick"] if quick else [])]
    say(f"== {name}")
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def table(lines: dict[str, dict]) -> str:
    """A row for each ratio: what it is held against, its target, and whether it was met."""
    rows = [
        "| benchmark | against | times better | target | load before |",
        "|---|---|---|---|---|",
    ]
    for name, line in sorted(lines.items()):
        for peer, ratio in sorted(line["ratios"].items()):
            target = line["targets"].get(peer, "")
            verdict = f"{target} {'missed' if peer in line['missed'] else 'met'}" if target else ""
            load = line["machine"]["load_before"]
            rows.append(f"| `{name}` | {peer} | {ratio:g} | {verdict} | {load} |")
    return "\n".join(rows)


def write(lines: dict[str, dict]) -> None:
    """Renew the stored lines and the table between the markers."""
    ordered = [json.dumps(lines[name]) for name in sorted(lines)]
    LINES.write_text("\n".join(ordered) + "\n")
    head, _, rest = RESULTS.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    RESULTS.write_text(f"{head}{BEGIN}\n{table(lines)}\n{END}{tail}")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("names", nargs="*", help="benchmarks to run; default: all")
    options = parser.parse_args()
    known = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in NOT_BENCHMARKS)
    if unknown := set(options.names) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    lines = {}
    if LINES.exists():
        stored = (json.loads(text) for text in LINES.read_text().splitlines())
        lines = {line["benchmark"]: line for line in stored}
    for name in options.names or known:
        line = run(name, quick=options.quick)
        print(json.dumps(line), flush=True)
        if not options.quick:
            lines[line["benchmark"]] = line
            write(lines)


if __name__ == "__main__":
    main()
