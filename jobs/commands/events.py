"""`uic events`: a Kafka broker for development, and producers of behaviour events."""

import signal
import threading
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands.options import shown_progress, takes_workspace
from uic.jobs.config.console import ERR, OUT, working
from uic.jobs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from types import FrameType

app = typer.Typer(
    no_args_is_help=True,
    help="Send behaviour events to Kafka or to files, and run a broker for development.",
)


class Target(StrEnum):
    """Where events go."""

    KAFKA = "kafka"
    FILES = "files"


RateOption = Annotated[float, typer.Option(min=0, help="Events a second; 0 = as fast as it goes.")]
SimulateUsersOption = Annotated[
    int | None, typer.Option(help="Send simulated events of so many users, not the log.")
]
KeepTimesOption = Annotated[
    bool, typer.Option("--keep-times", help="Keep event times; else events happen when sent.")
]


@app.command()
@takes_workspace
def broker(
    *,
    port: Annotated[int, typer.Option(help="TCP port on loopback.")] = 9092,
    partitions: Annotated[
        int, typer.Option(help="Partitions of the topic, if it is not there yet.")
    ] = 4,
    workspace: Workspace,
) -> None:
    """Run a real Kafka broker (KRaft) on loopback until Ctrl-C, with the topic of the settings.

    Its data is in WORKSPACE/kafka; a later start has it again. It stamps events with their append
    time, as the stream job asks. Needs Java and jars: `uic events jars`, or `make jars`.

    Exit status 1 if the broker ends by itself, 2 if its port is another process's.
    """
    stopped = threading.Event()

    def on_signal(number: int, frame: "FrameType | None") -> None:
        del number, frame
        stopped.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    topic = workspace.config.stream.topic
    with workspace.events.broker(port) as server:
        server.ensure_topic(topic, partitions)
        OUT.print(f"Kafka at {server.brokers}, topic {topic} (process {server.pid})", markup=False)
        while not stopped.wait(0.5):
            server.require_running()


@app.command()
@takes_workspace
def jars(*, workspace: Workspace) -> None:
    """Fetch the jars of Kafka and of Flink's connector into WORKSPACE/jars, with Maven.

    A checkout has them in infra/jars after `make jars`. Jars from elsewhere are named by
    stream.jars_folder.
    """
    with working("fetching jars"):
        folders = workspace.events.fetch_jars()
    for kind, folder in folders.items():
        OUT.print(f"{kind:<6} {folder}", markup=False)


@app.command()
@takes_workspace
def produce(
    *,
    to: Annotated[Target, typer.Option(help="Topic of the settings, or files.")] = Target.KAFKA,
    rate: RateOption = 0.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Events in all.")] = None,
    simulate_users: SimulateUsersOption = None,
    days: Annotated[int, typer.Option(min=2, help="Simulated days.")] = 70,
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = 1,
    keep_times: KeepTimesOption = False,
    workspace: Workspace,
) -> None:
    """Send the workspace's event log, or simulated events, keyed by user id.

    The producer is idempotent (enable.idempotence=true, acks=all) and puts users where Java's
    default partitioner does (partitioner=murmur2_random of the id in decimal digits). Another
    producer must use the same partitioner, or users end up in two partitions and their events
    are refused.

    To files: one more gzip file of JSON lines a partition in WORKSPACE/events, with the log's own
    times, for `uic stream run --source files`.
    """
    if to is Target.KAFKA:
        _print_producer()
    with shown_progress() as progress:
        sent = workspace.events.produce(
            to.value, rate=rate, limit=limit, simulate_users=simulate_users, days=days, seed=seed,
            keep_times=keep_times, progress=progress,
        )  # fmt: skip
    done = "sent" if to is Target.KAFKA else "written"
    OUT.print(f"{sent.events:,} events {done} to {sent.to}", markup=False)


def _print_producer() -> None:
    from uic.jobs.stream.topics.produce import PRODUCER_SETTINGS

    settings = ", ".join(f"{key}={value}" for key, value in PRODUCER_SETTINGS.items())
    ERR.print(f"producer: {settings}", markup=False)
