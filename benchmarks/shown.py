"""What a list of 20 shown items costs a stream's fold, beside a click and beside 20 messages.

    python benchmarks/shown.py [--quick]

Payloads are parsed and folded into records with the package's parts, as the stream's worker does,
without the store. Shown items are sent as one list a request, or as a user would otherwise send
them: a message an item, here a click each. A sample of a tenth saves the fold alone, since a list
is parsed all the same. The lists' counters are compared with plain counting.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
from harness import alternate, arguments, median, report

from uic.jobs.stream.topics.produce import payload_of, shown_payload
from uic.models.memory.fold import MemoryFolder
from uic.models.state.definition import DEFAULT, StateDefinition
from uic.models.state.part import Asked
from uic.pipelines.log.columns import event_batch
from uic.pipelines.log.events import EventParser
from uic.pipelines.settings import LogSettings

NOW_MS = 1_772_323_200_000
ITEMS = 20
USERS = 1000


class PartsAlone:
    """A fold's view of a bundle without a network."""

    hash8 = b"benchmrk"
    has_memory = False

    def __init__(self, state):
        self.state = state


def sampled_state(share):
    """The package's parts, with a share of the requests."""
    document = StateDefinition.load(DEFAULT).document()
    document["parts"]["shown"]["sample"] = share
    return StateDefinition.of_document(document, "benchmark")


def folded(folder, payloads):
    """Records of all users after the payloads, parsed and folded as one batch."""
    times = np.full(len(payloads), NOW_MS)
    parsed = EventParser(LogSettings(), lists=True).parse(payloads, times)
    ones = np.ones(len(parsed.index), np.int64)
    table = {
        "user_id": parsed.user_ids,
        "item_id": parsed.item_ids,
        "category_id": parsed.category_ids,
        "behavior": parsed.behaviors,
        "event_time": parsed.event_times_ms,
        "log_time": times[parsed.index],
        "epoch": ones,
        "partition": ones * 0,
        "offset": parsed.index,
    } | {f"event.{name}": values for name, values in parsed.columns.items()}
    batch = event_batch(pa.table(table), np.arange(USERS))
    return folder.fold(folder.initial_records(USERS), batch).records


def main():
    """Print one JSON line: microseconds a request of 20 items, and a click."""
    options = arguments(__doc__).parse_args()
    requests = 2_000 if options.quick else 20_000
    draw = np.random.default_rng(0)
    users = draw.integers(0, USERS, requests).tolist()
    items = draw.zipf(1.3, (requests, ITEMS)) % 5000
    lists = [
        shown_payload(user, own.tolist(), (own % 40).tolist(), at, NOW_MS)
        for at, (user, own) in enumerate(zip(users, items, strict=True))
    ]
    clicks = [
        payload_of(user, int(own[0]), int(own[0] % 40), "click", NOW_MS)
        for user, own in zip(users, items, strict=True)
    ]
    singly = [
        payload_of(user, item, item % 40, "click", NOW_MS)
        for user, own in zip(users, items, strict=True)
        for item in own.tolist()
    ]
    whole, tenth = (MemoryFolder(PartsAlone(sampled_state(share)), 1) for share in (1.0, 0.1))
    records = folded(whole, lists)
    compare(whole, records, users)
    runs = {
        "click": lambda: folded(whole, clicks),
        "list": lambda: folded(whole, lists),
        "list_sampled": lambda: folded(tenth, lists),
        "messages": lambda: folded(whole, singly),
    }
    seconds = alternate(runs, 3 if options.quick else 7)
    micros = {name: median(own) / requests * 1e6 for name, own in seconds.items()}
    sizes = {"list": sum(map(len, lists)), "messages": sum(map(len, singly))}
    of = {name: {"us_a_request": float(f"{own:.4g}")} for name, own in micros.items()}
    for name, size in sizes.items():
        of[name]["bytes_a_request"] = size // requests
    report(
        "shown",
        ours={"list": of["list"], "list_sampled": of["list_sampled"], "click": of["click"]},
        peers={"a_message_an_item": of["messages"]},
        ratios={
            "messages_over_list": micros["messages"] / micros["list"],
            "list_over_click": micros["list"] / micros["click"],
        },
        targets={},
    )


def compare(folder, records, users):
    """Exposures of each user are twenty times their requests.

    Raises:
        AssertionError: they are not.
    """
    rows = np.arange(USERS)
    asked = Asked(rows, np.full(USERS, NOW_MS), rows * 0, rows * 0)
    state = StateDefinition.load(DEFAULT)
    states = np.ascontiguousarray(records[:, records.shape[1] - folder.parts_bytes :])
    said = state.features(states, asked)
    at = [one.name for one in state.described].index("shown.exposures")
    if not (said[:, at] == ITEMS * np.bincount(users, minlength=USERS)).all():
        msg = "exposures differ from those of plain counting"
        raise AssertionError(msg)


if __name__ == "__main__":
    main()
