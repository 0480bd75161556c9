"""Exact parts in a stream, beside a keyed PyFlink job and storey with the same aggregates.

    python benchmarks/stream_state.py [--quick] [--storey PYTHON]

CPU seconds an event: how often and how lately each user met each item and each category. Ours is
measured twice, with the package's parts and records in a real Redis, whose own CPU counts: the
worker's function alone (`function`), and the whole job from Kafka (`job`: Java, Python workers,
checkpoints, archive) after its first tenth. The peers keep the counters in state of their own and
write nothing out: `peers/keyed_counters.py`, a `MapState` at parallelism 1 without checkpoints, of
which Java and the Python worker count after the first tenth of the events, is beside the job; and
`peers/storey_counters.py`, a library without a cluster, by the Python of an environment that has it
and left out without one, is beside the function. Counters are compared in the run; ours may differ
where two keys share a fingerprint of 16 bits.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from harness import arguments, report, say
from running_stream import PARTITIONS, Ours

from uic.feature_repo.store.connection import connect, resolve_address
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.packed import PackedStore
from uic.jobs.drills.trial import start_trial, trial_context
from uic.jobs.stream.fold.fold_function import FoldFunction
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.java import java_home
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.jobs.stream.topics.produce import Outgoing, Pace, send_to_kafka
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.saving import save_state
from uic.models.records.record import parts_view
from uic.models.state.definition import DEFAULT, StateDefinition
from uic.models.state.part import Asked
from uic.pipelines.log.events import EventParser
from uic.pipelines.settings import LogSettings

HERE = Path(__file__).resolve().parent
# A broker stamps events with now, and older ones are refused.
BEGIN_MS = int(time.time() * 1000) - 21 * 3_600_000
BATCH = 2000
# Of (user, key) pairs: what 16 bits of a fingerprint may mix up.
LEAST_EQUAL = 0.998


def drawn(users, events):
    """Lines of JSON within 20 hours, and their columns."""
    draw = np.random.default_rng(0)
    user, item = draw.integers(0, users, events), draw.zipf(1.3, events) % 2000
    times = BEGIN_MS + np.sort(draw.integers(0, 20 * 3_600_000, events))
    lines = [
        json.dumps(
            {
                "user_id": one,
                "item_id": met,
                "category_id": met % 40,
                "behavior": "click",
                "event_time": at,
            }
        )
        for one, met, at in zip(user.tolist(), item.tolist(), times.tolist(), strict=True)
    ]
    return lines, times, user


def ours(folder, lines, times):
    """CPU microseconds an event of the fold function with its store, and the counters' reader."""
    context = trial_context(folder, {})
    path = context.bundles / "state" / "0001"
    save_state(path, StateDefinition.load(DEFAULT), ())
    server, folder_of = start_trial(context, bundle=load_bundle(path))
    try:
        address = resolve_address(context.config.store, context.workspace)
        store = PackedStore(connect(address), ViewKeys.of_memories(context.config.store.project))
        function = FoldFunction(
            parser=EventParser(LogSettings()), folder=folder_of, store=store, epoch=1, starts={0: 0}
        )
        payloads = [line.encode() for line in lines]
        tenth = len(lines) // 10 // BATCH * BATCH or BATCH
        redis = psutil.Process(server.running().pid)
        for first in range(0, len(lines), BATCH):
            if first == tenth:
                began = time.process_time() + sum(redis.cpu_times()[:2])
            rows = slice(first, first + BATCH)
            count = len(payloads[rows])
            reasons = function(
                payloads[rows],
                np.zeros(count, np.int64),
                np.arange(first, first + count),
                times[rows],
            )
            if any(reasons):
                raise AssertionError(reasons)
        seconds = time.process_time() + sum(redis.cpu_times()[:2]) - began
        users = np.arange(max(json.loads(line)["user_id"] for line in lines) + 1)
        records, _ = store.read(1, users, folder_of.record_bytes)
        states = np.ascontiguousarray(parts_view(records, folder_of.parts_bytes))
        return seconds / (len(lines) - tenth) * 1e6, states
    finally:
        server.stop()


def job(folder, lines, users):
    """CPU microseconds an event of the whole stream job from Kafka, after its first tenth."""
    path = trial_context(folder / "job", {}).bundles / "state" / "0001"
    save_state(path, StateDefinition.load(DEFAULT), ())
    bundle, me = load_bundle(path), psutil.Process()
    with KafkaServer(folder / "kafka", heap_mib=1024) as kafka:
        kafka.create_topic("counted", PARTITIONS)
        payloads = [line.encode() for line in lines]
        now = np.full(len(lines), int(time.time() * 1000), np.int64)
        outgoing = [Outgoing(payloads, users, now)]
        send_to_kafka(outgoing, Brokers(kafka.brokers), "counted", Pace())
        with Ours(folder / "job", kafka.brokers, "counted", bundle) as running:
            before, first = 0.0, 0
            while (folded := running.folded()) < len(lines):
                if not running.thread.is_alive():
                    msg = "the stream ended early"
                    raise RuntimeError(msg)
                if not first and folded >= len(lines) // 10:
                    first, before = folded, _cpu_of(me, kafka.pid)
                time.sleep(0.02)
            seconds = _cpu_of(me, kafka.pid) - before
    return seconds / (len(lines) - first) * 1e6


def _cpu_of(me, without):
    """Seconds of all processes below `me`, but for one of them."""
    return sum(
        sum(one.cpu_times()[:2]) for one in me.children(recursive=True) if one.pid != without
    )


def equal_share(states, counters):
    """Of (user, key) pairs, for which share our records say what a peer counted."""
    state = StateDefinition.load(DEFAULT)
    names = [one.name for one in state.described]
    equal = total = 0
    for field, part in (("item_id", "items"), ("category_id", "categories")):
        keys = [key.split(":")[1:] for key in counters if key.startswith(f"{field}:")]
        rows = np.array(keys, np.int64)
        column = rows[:, 1]
        asked = Asked(rows[:, 0], np.full(len(rows), BEGIN_MS), column, column)
        said = state.features(states, asked)[:, names.index(f"{part}.count")]
        wanted = np.array([counters[f"{field}:{user}:{key}"][0] for user, key in keys])
        equal += int((said == np.minimum(wanted, 255)).sum())
        total += len(rows)
    return equal / total


def peer(python, name, source, folder):
    """What a peer's script wrote."""
    target = folder / f"{name}.json"
    environment = {
        **os.environ, "JAVA_HOME": str(java_home()), "FLINK_LOG_DIR": str(folder), "PYTHONPATH": "",
    }  # fmt: skip
    command = [str(python), str(HERE / "peers" / f"{name}.py"), str(source), str(target)]
    done = subprocess.run(
        command, env=environment, capture_output=True, cwd=folder, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(target.read_text())


def main():
    """Print one JSON line."""
    parser = arguments(__doc__)
    parser.add_argument("--storey", type=Path, help="python of an environment with storey")
    options = parser.parse_args()
    own, theirs = (20_000, 3_000) if options.quick else (1_000_000, 40_000)
    users = 200 if options.quick else 2_000
    figures, ratios, equal = {}, {}, []
    with tempfile.TemporaryDirectory(prefix="uic-bench-stream-state-") as name:
        folder = Path(name)
        own_lines, own_times, own_users = drawn(users, own)
        cost, _ = ours(folder / "ours", own_lines, own_times)
        say(f"function: {cost:.2f} us of CPU an event")
        whole = job(folder, own_lines, own_users)
        say(f"job: {whole:.2f} us of CPU an event")
        lines, times, _ = drawn(users, theirs)
        source = folder / "events.jsonl"
        source.write_text("\n".join(lines) + "\n")
        _, states = ours(folder / "compared", lines, times)
        pythons = {"keyed_counters": sys.executable, "storey_counters": options.storey}
        for script, python in pythons.items():
            if python is None:
                say(f"{script}: left out; --storey names a Python that has it")
                continue
            found = peer(python, script, source, folder)
            theirs_cost = found["cpu_seconds"] / found.get("events", theirs) * 1e6
            share = equal_share(states, found["counters"])
            equal.append(share)
            figures[script] = {"us_of_cpu": float(f"{theirs_cost:.4g}"), "equal": round(share, 5)}
            ratios[script] = theirs_cost / (whole if script == "keyed_counters" else cost)
            say(f"{script}: {figures[script]}")
    if min(equal) < LEAST_EQUAL:
        msg = f"counters differ: equal shares {equal}"
        raise AssertionError(msg)
    targets = {"keyed_counters": ">=300", "storey_counters": ">=50"}
    report(
        "stream_state",
        ours={"function": float(f"{cost:.4g}"), "job": float(f"{whole:.4g}"), "events": own},
        peers=figures,
        ratios=ratios,
        targets={script: targets[script] for script in ratios},
        packages=("numpy", "apache-flink"),
    )


if __name__ == "__main__":
    main()
