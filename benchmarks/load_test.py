"""How fast a running ranking service answers at a rate that it cannot slow down.

    python benchmarks/load_test.py -w WORKSPACE [--rate 100 --rate 200] [--seconds 10]

Users and candidates are drawn from the impressions of the workspace's log. Latency counts from the
moment at which a request was due, so a slow server cannot slow the load down. Prints the figures
as JSON, draws `load-test.png` into the workspace's reports, and ends with status 1 if a request
failed.
"""

import argparse
import json
import sys
from pathlib import Path

from harness import say
from load.generator import LoadPlan, run_load
from load.report import draw, report_of
from load.targets import bodies_from_log

from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", help="of the service; default: serve.host and serve.port")
    parser.add_argument(
        "--rate", type=float, action="append", help="requests/s; may be repeated, one run each"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds before, not counted")
    parser.add_argument("--candidates", type=int, default=200, help="items a request")
    parser.add_argument("--connections", type=int, default=128, help="open at once, at most")
    parser.add_argument("--distinct", type=int, default=2000, help="requests, sent in turn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of users and candidates")
    parser.add_argument("-w", "--workspace", type=Path, default=DEFAULT_WORKSPACE)
    parser.add_argument("--config", type=Path, help="settings file")
    return parser


def main() -> None:
    options = arguments().parse_args()
    context = open_context(options.workspace, options.config)
    settings = context.config.serve
    bodies = bodies_from_log(context.log, options.distinct, options.candidates, options.seed)
    target = options.url or f"http://{settings.host}:{settings.port}"
    results = []
    for rate in options.rate or [50.0, 100.0, 200.0]:
        plan = LoadPlan(
            url=target,
            bodies=bodies,
            rate=rate,
            seconds=options.seconds,
            token=None if settings.token is None else settings.token.get_secret_value(),
            connections=options.connections,
            warm_up_seconds=options.warm_up,
        )
        results.append(run_load(plan))
        say(str(results[-1].summary()))
    report = {"url": target, "candidates": options.candidates, **report_of(results)}
    picture = context.reports / "load-test.png"
    draw(report, picture, f"{options.candidates} candidates a request")
    print(json.dumps(report))
    say(f"plot: {picture}")
    if failed := sum(result.failed for result in results):
        sys.exit(f"{target}: {failed} requests failed; see `statuses` above, and the service's log")


if __name__ == "__main__":
    main()
