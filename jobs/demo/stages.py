"""Which commands the demo runs, in order, and what each of them leaves behind."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from uic.jobs.stream.topics.kafka_server import free_port

KUAIRAND_FOLDER: Final = "kuairand_pure_14d"
# KuaiRand's 14 days of impressions in its own zone, and the last two weeks of the simulation.
KUAIRAND_DAYS: Final = (date(2022, 4, 25), date(2022, 5, 8))
KUAIRAND_ZONE: Final = "Asia/Shanghai"
SIMULATED_DAYS: Final = (date(2025, 2, 1), date(2025, 2, 14))
# Sessions and order: what a mean of the history does not tell, and a model learns in minutes.
SIMULATED: Final = ("simulate", "--preset", "sessions")
# `--quick`: the same stages over a few users and days.
QUICK: Final = ("simulate", "--users", "200", "--items", "500", "--days", "14")
QUICK_DAYS: Final = (date(2025, 1, 7), date(2025, 1, 14))
BASELINES: Final = ("sum_pooling", "din")
VERSION: Final = "demo"
# Days before the test: four models in some minutes.
TRAINED_DAYS: Final = 6
SIMULATED_TRAINED_DAYS: Final = 12
# How every model of the demo is trained; `--quick` too. One pass over a week is 70 steps of the
# default batches, too few: on KuaiRand MIMN then has an AUC of 0.674, with these 0.713.
EPOCHS: Final = 1
# The simulation's signals take longer to be learned than KuaiRand's popular videos.
SIMULATED_EPOCHS: Final = 3
BATCH_IMPRESSIONS: Final = 128
LEARNING_RATE: Final = 0.002
# Stretches of the day that is lived again: a memory is at most half an hour of that day behind.
STRETCHES: Final = 48
QUICK_STRETCHES: Final = 4
# Ten minutes: what a session of the simulation is about has faded after half an hour.
SIMULATED_STRETCHES: Final = 144
_SETTINGS: Final = {
    # A day passes in a minute or two: what streamed must be in the archive soon after.
    "UIC_STREAM__CHECKPOINT_SECONDS": "2",
    "UIC_STREAM__ARCHIVE_ROLL_SECONDS": "2",
    "UIC_SERVE__DRAIN_SECONDS": "0",
    # A few dozen batches: a point of the training curve for every five.
    "UIC_TRAIN__CURVE_EVERY_STEPS": "5",
    # What some users were ranked with is written down, for the audit of what was served.
    "UIC_SERVE__LOG_FEATURES": "true",
    "UIC_SERVE__LOG_FEATURES_SAMPLE": "0.05",
}
# A broker stamps events with the time of now, so a day of years ago is very late.
_KAFKA_SETTINGS: Final = {"UIC_LOG__MAX_EVENT_AGE_DAYS": "36500"}
_KAFKA_PARTITIONS: Final = 4


@dataclass(frozen=True)
class DemoStage:
    """One step of the demo: `uic` and these arguments.

    Args:
        name: for `--from`.
        purpose: for people.
        arguments: typed after `uic`.
        background: the process stays; it is ready when `ready_path` answers on `port`, or when
            its output has `ready_line`.
        ended_by: arguments of the command that ends what this one leaves running.
        resume_from: stage from which to go on instead; None: from this one.
        before: commands that put things in order when the demo goes on from here or earlier.
        removes: files and folders of the workspace that such a demo must not find.
        again: run it also when the demo goes on from a later stage, which needs what it starts.
        keeps_json_as: name below `reports` for the last line of its output.
    """

    name: str
    purpose: str
    arguments: tuple[str, ...]
    background: bool = False
    port: int = 0
    ready_path: str = "/readyz"
    ready_line: str = ""
    ended_by: tuple[str, ...] = ()
    resume_from: str | None = None
    before: tuple[tuple[str, ...], ...] = ()
    removes: tuple[str, ...] = ()
    again: bool = False
    keeps_json_as: str | None = None

    def command(self, workspace: Path) -> list[str]:
        """The arguments with the workspace, as typed after `uic`."""
        return [*self.arguments, "--workspace", str(workspace)]


@dataclass(frozen=True)
class Plan:
    """What a demo does.

    Args:
        data: in words.
        time_zone: whose days the stages cut by.
        stages: in order.
        environment: settings for all of them.
        options: of `uic demo` that make the same plan again.
    """

    data: str
    time_zone: str
    stages: tuple[DemoStage, ...]
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


def make_plan(shared_data: Path, *, quick: bool = False, kafka: bool = False) -> Plan:
    """The demo of KuaiRand if it is there, else of the simulator.

    Args:
        shared_data: folder of real data.
        quick: a small simulation.
        kafka: the day streams through a real broker, not from files.
    """
    folder = shared_data / KUAIRAND_FOLDER
    settings, zone = dict(_SETTINGS), "UTC"
    source: tuple[str, ...]
    if quick:
        data, source, days, stretches = "simulator, a small one", QUICK, QUICK_DAYS, QUICK_STRETCHES
        settings["UIC_SERVE__LOG_FEATURES_SAMPLE"] = "1"
    elif folder.is_dir():
        data, zone = f"KuaiRand ({folder})", KUAIRAND_ZONE
        source, days, stretches = ("import", "kuairand", str(folder)), KUAIRAND_DAYS, STRETCHES
    else:
        data, source = "simulator", SIMULATED
        days, stretches = SIMULATED_DAYS, SIMULATED_STRETCHES
    options = ("--quick",) * quick
    if not kafka:
        stages = _stages(source, days, _Stream(stretches, days[1]))
        return Plan(data, zone, stages, settings, options)
    # A broker's log time is now: the day that is lived again becomes part of today's log.
    today = datetime.now(ZoneInfo(zone)).date()
    stream = _Stream(stretches, today, broker_port=free_port())
    settings |= {**_KAFKA_SETTINGS, "UIC_STREAM__BROKERS": f"127.0.0.1:{stream.broker_port}"}
    stages = _stages(source, days, stream)
    return Plan(f"{data}, through Kafka", zone, stages, settings, (*options, "--kafka"))


@dataclass(frozen=True)
class _Stream:
    """How the day is lived again.

    Args:
        stretches: pieces of the day.
        log_day: whose log its events become.
        broker_port: of the Kafka broker; 0 for event files.
    """

    stretches: int
    log_day: date
    broker_port: int = 0

    @property
    def source(self) -> str:
        """As `uic stream run` and `uic replay` call it."""
        return "kafka" if self.broker_port else "files"


def _stages(
    source: Sequence[str], days: tuple[date, date], stream: _Stream
) -> tuple[DemoStage, ...]:
    first, last = days
    eve = last - timedelta(days=1)
    return (
        DemoStage("import", "behaviours and impressions", tuple(source), removes=("log", "replay")),
        DemoStage("gates", "judge the log", ("check",)),
        DemoStage("hold-back", f"keep {last} for later", ("replay", "hold-back", f"{last}")),
        DemoStage(
            "state",
            "counters that records hold beside the memory",
            ("state", "init"),
            removes=("state.yaml",),
        ),
        DemoStage(
            "samples",
            "group impressions with their history, and with the counters",
            ("samples", "--first", f"{first}", "--last", f"{eve}"),
        ),
        *_training(eve, simulated=source == SIMULATED),
        *_loading(eve, features=source[0] == "import"),
        *_broker(stream),
        *_live_day(last, stream),
        *_checks(eve, stream.log_day),
    )


def _training(eve: date, *, simulated: bool) -> tuple[DemoStage, ...]:
    """Each trains on the same days, and is tested on the last of them."""
    first = eve - timedelta(days=SIMULATED_TRAINED_DAYS if simulated else TRAINED_DAYS)
    epochs = SIMULATED_EPOCHS if simulated else EPOCHS
    common: tuple[str, ...] = ("--samples", "default", "--first", f"{first}")
    common += ("--epochs", f"{epochs}")
    common += ("--set", f"batch_impressions={BATCH_IMPRESSIONS}")
    common += ("--set", f"learning_rate={LEARNING_RATE}")
    plain = ("--set", "utilization_loss_weight=0")
    runs = (
        ("train-plain", "mimn", "plain", "the same without the slots' regularisation", plain),
        ("train-mimn", "mimn", VERSION, "the ranker with a memory", ()),
        *((f"train-{name}", name, VERSION, "a ranker without one", ()) for name in BASELINES),
    )
    return tuple(
        DemoStage(
            name,
            purpose,
            ("train", model, *options, *common, "--version", version),
            removes=(f"bundles/{model}/{version}",),
        )
        for name, model, version, purpose, options in runs
    )


def _loading(eve: date, *, features: bool) -> tuple[DemoStage, ...]:
    """A generation in the store and, where the data have them, the features of users."""
    of_users = DemoStage(
        "features",
        "what is known of users beside events",
        ("features", "load"),
        resume_from="store",
    )
    bundle = ("--bundle", f"mimn/{VERSION}")
    return (
        DemoStage(
            "memories",
            f"fold the log of all users up to the midnight after {eve}",
            ("memories", "build", *bundle, "--until", f"{eve}", "--generation", "1"),
            removes=("memories",),
        ),
        DemoStage(
            "store",
            "a Redis of our own",
            ("store", "start"),
            ended_by=("store", "stop"),
            before=(("replay", "reset", "--yes"),),
            again=True,
        ),
        DemoStage(
            "load",
            "feast apply and feast materialize",
            ("memories", "load", f"generation=001/dt={eve}", "--by-feast"),
            resume_from="store",
        ),
        DemoStage(
            "switch", "let readers read it", ("memories", "switch", "1"), resume_from="store"
        ),
        *((of_users,) if features else ()),
    )


def _broker(stream: _Stream) -> tuple[DemoStage, ...]:
    if not stream.broker_port:
        return ()
    options = ("--port", f"{stream.broker_port}", "--partitions", f"{_KAFKA_PARTITIONS}")
    return (
        DemoStage(
            "broker",
            "a real Kafka broker",
            ("events", "broker", *options),
            background=True,
            ready_line="Kafka at",
            resume_from="store",
            removes=("kafka",),
        ),
    )


def _live_day(day: date, stream: _Stream) -> tuple[DemoStage, ...]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    stretches = ("--url", url, "--stretches", f"{stream.stretches}", "--to", stream.source)
    return (
        DemoStage(
            "serve",
            "the ranking service",
            ("serve", "--bundle", "mimn", "--port", f"{port}"),
            background=True,
            port=port,
            resume_from="store",
        ),
        DemoStage(
            "begin",
            f"rank {day} with the memories of midnight, and let the first events happen",
            ("replay", "begin", *stretches),
            resume_from="store",
        ),
        DemoStage(
            "stream",
            "the job that folds events into memories",
            ("stream", "run", "--source", stream.source, "--detach"),
            ended_by=("stream", "stop"),
            resume_from="store",
        ),
        DemoStage(
            "replay",
            f"live through {day}: events as they happened, impressions ranked on time",
            ("replay", "run", *stretches),
            resume_from="store",
        ),
        DemoStage("stop", "end the stream", ("stream", "stop"), resume_from="store"),
        DemoStage(
            "compact",
            "what streamed becomes part of the log",
            ("log", "compact", f"{stream.log_day}"),
            resume_from="store",
        ),
    )


def _checks(eve: date, last: date) -> tuple[DemoStage, ...]:
    bundle, yesterdays = ("--bundle", f"mimn/{VERSION}"), f"generation=001/dt={eve}"
    return (
        DemoStage(
            "snapshot",
            "the nightly snapshot: yesterday's and one day",
            ("memories", "build", *bundle, "--until", f"{last}", "--from", yesterdays),
            removes=(f"memories/generation=001/dt={last}",),
        ),
        DemoStage(
            "audit",
            "hold what is served against the log",
            ("audit", "--sample-rate", "1"),
        ),
        DemoStage("report", "the page", ("report",)),
    )
