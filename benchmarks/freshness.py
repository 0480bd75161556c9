"""Freshness: from the producer to Feast, while the stream is under steady load.

    python benchmarks/freshness.py [--quick] [--rate R] [--seconds S] [--plot FILE]

Events of 50,000 users come at a steady rate, by default half of what `stream.py` sustains
here. After a minute, in which Java compiles, probes are sent: events of users never seen before,
timed from `produce` until `get_online_features` returns their memory. No peer: the targets are
absolute, and the idiomatic jobs do not reach the rate.
"""

import tempfile
import threading
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
from confluent_kafka import Producer
from harness import arguments, report, say
from matplotlib import pyplot as plt
from running_stream import PARTITIONS, Ours

from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.jobs.stream.topics.produce import (
    PRODUCER_SETTINGS,
    Outgoing,
    Pace,
    payload_of,
    send_to_kafka,
)

TOPIC = "fresh"
USERS = 50_000
PROBE_USERS = 10**9  # above all others


def freshness(ours: Ours, rate: float, warm: float, seconds: float) -> list[tuple[float, float]]:
    """(seconds since the first probe, milliseconds) of each, while events come at `rate`."""
    stream = ours.context.config.stream
    draw = np.random.default_rng(5)
    ended = threading.Event()

    def load() -> None:
        pace = Pace(rate)

        def batches():
            while not ended.is_set():
                ids = draw.integers(0, USERS, 2000)
                now = int(time.time() * 1000)
                payloads = [payload_of(user, user % 5000, 1, "click", now) for user in ids.tolist()]
                yield Outgoing(payloads, ids, np.full(len(ids), now, np.int64))

        send_to_kafka(batches(), Brokers(stream.brokers), stream.topic, pace)

    feast = open_feature_store(ours.context.config.store, ours.context.workspace)
    apply_definitions(feast, ours.context.workspace)
    sender = threading.Thread(target=load, daemon=True)
    sender.start()
    producer = Producer({"bootstrap.servers": stream.brokers, **PRODUCER_SETTINGS})
    probes: list[tuple[float, float]] = []
    time.sleep(warm)
    began = time.monotonic()
    try:
        for user in range(PROBE_USERS, PROBE_USERS + 10**6):
            if time.monotonic() - began > seconds:
                break
            produced = time.monotonic()
            payload = payload_of(user, 1, 1, "click", int(time.time() * 1000))
            producer.produce(stream.topic, key=str(user), value=payload)
            producer.flush()
            while True:
                answer = feast.get_online_features(
                    features=["user_interest:memory"], entity_rows=[{"user_id": user}]
                ).to_dict()
                if answer["memory"][0] is not None:
                    break
                if time.monotonic() - produced > 30:
                    msg = "a probe did not arrive within 30 s"
                    raise RuntimeError(msg)
            probes.append((produced - began, 1000 * (time.monotonic() - produced)))
            time.sleep(0.2)
    finally:
        ended.set()
        sender.join(60)
    return probes


def plot(probes: list[tuple[float, float]], path: Path) -> None:
    mpl.use("Agg")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    times, values = zip(*probes, strict=True)
    left.plot(times, values, ".", markersize=3)
    left.set(xlabel="seconds", ylabel="produced to readable through Feast, ms", yscale="log")
    right.plot(np.sort(values), np.linspace(0, 1, len(values)))
    right.set(xlabel="ms", ylabel="share of events", xscale="log")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _wait_until_folding(ours: Ours, kafka: KafkaServer) -> None:
    """The first events start the workers; the probes come when they run."""
    ids = np.arange(2000)
    batch = Outgoing(
        [payload_of(user, 1, 1, "click", int(time.time() * 1000)) for user in ids.tolist()],
        ids,
        ids,
    )
    send_to_kafka([batch], Brokers(kafka.brokers), TOPIC, Pace())
    until = time.monotonic() + 240
    while ours.folded() < len(ids):
        if time.monotonic() > until:
            msg = "the stream did not start"
            raise RuntimeError(msg)
        time.sleep(0.1)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=20_000.0, help="events per second")
    parser.add_argument("--seconds", type=float, default=300.0, help="of probes")
    parser.add_argument("--warm-seconds", type=float, default=60.0, help="before the first probe")
    parser.add_argument("--plot", type=Path, help="where to draw it")
    options = parser.parse_args()
    seconds = 6.0 if options.quick else options.seconds
    warm = 2.0 if options.quick else options.warm_seconds
    with tempfile.TemporaryDirectory(prefix="uic-bench-fresh-") as name:
        folder = Path(name)
        with KafkaServer(folder / "kafka", heap_mib=1024) as kafka:
            kafka.create_topic(TOPIC, PARTITIONS)
            with Ours(folder / "ours", kafka.brokers, TOPIC) as running:
                _wait_until_folding(running, kafka)
                say(f"{options.rate:,.0f} events/s")
                probes = freshness(running, options.rate, warm, seconds)
                status = running.status()
    if options.plot:
        plot(probes, options.plot)
    values = np.array([value for _, value in probes])
    figures = {
        f"p{share}_ms": float(f"{np.percentile(values, share):.4g}") for share in (50, 90, 99)
    }
    report(
        "freshness",
        ours={
            "events_per_second": options.rate,
            "users": USERS,
            "events": status.totals["folded"],
            "seconds": seconds,
            "probes": len(values),
            **figures,
        },
        peers={},
        ratios={"p50_ms": figures["p50_ms"], "p99_ms": figures["p99_ms"]},
        targets={"p50_ms": "<=300", "p99_ms": "<=1000"},
        packages=("apache-flink", "feast", "redis"),
    )


if __name__ == "__main__":
    main()
