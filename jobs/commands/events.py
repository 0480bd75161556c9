"""`uic events`: a Kafka broker for development, and producers of behaviour events."""

import signal
import threading
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT, progress_display
from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context

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


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="events")


@app.command()
def broker(
    *,
    port: Annotated[int, typer.Option(help="TCP port on loopback.")] = 9092,
    partitions: Annotated[
        int, typer.Option(help="Partitions of the topic, if it is not there yet.")
    ] = 4,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Run a real Kafka broker (KRaft) on loopback until Ctrl-C, with the topic of the settings.

    Its data is in WORKSPACE/kafka; a later start has it again. It stamps events with their append
    time, as the stream job asks. Needs Java and the jars of `make jars`.
    """
    from confluent_kafka import KafkaException

    from uic.jobs.stream.topics.kafka_server import KafkaServer

    context = open_context(workspace, config)
    topic = context.config.stream.topic
    asked_to_stop = threading.Event()

    def on_signal(number: int, frame: "FrameType | None") -> None:
        del number, frame
        asked_to_stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    with KafkaServer(context.workspace / "kafka", port) as server:
        try:
            server.create_topic(topic, partitions)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise
        OUT.print(f"Kafka at {server.brokers}, topic {topic} (process {server.pid})", markup=False)
        while server.is_running and not asked_to_stop.wait(0.5):
            pass


@app.command()
def produce(
    *,
    to: Annotated[Target, typer.Option(help="Topic of the settings, or files.")] = Target.KAFKA,
    rate: Annotated[
        float, typer.Option(min=0, help="Events a second; 0 = as fast as it goes.")
    ] = 0.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Events in all.")] = None,
    simulate_users: Annotated[
        int | None, typer.Option(help="Send simulated events of so many users, not the log.")
    ] = None,
    days: Annotated[int, typer.Option(min=2, help="Simulated days.")] = 70,
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = 1,
    keep_times: Annotated[
        bool,
        typer.Option("--keep-times", help="Keep event times; else events happen when sent."),
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Send the workspace's event log, or simulated events, keyed by user id.

    The producer is idempotent (enable.idempotence=true, acks=all) and puts users where Java's
    default partitioner does (partitioner=murmur2_random of the id in decimal digits). Whoever
    writes another producer must use the same partitioner, or users end up in two partitions and
    their events are refused.

    To files: one more gzip file of JSON lines a partition in WORKSPACE/events, with the log's own
    times, for `uic stream run --source files`.
    """
    from uic.jobs.stream.topics.produce import (
        PRODUCER_SETTINGS,
        Pace,
        log_payloads,
        send_to_kafka,
        simulated_payloads,
        write_files,
    )
    from uic.models.errors import BadInputError
    from uic.pipelines.log.event_log import EventLog

    context = open_context(workspace, config)
    stream = context.config.stream
    now = to is Target.KAFKA and not keep_times
    if simulate_users is not None:
        batches = simulated_payloads(simulate_users, days, seed, now=now)
    else:
        log = EventLog(context.log)
        if not log.behavior_files():
            msg = f"{context.log}: no events to send; import some, or give --simulate-users"
            raise BadInputError(msg)
        batches = log_payloads(log, now=now)
    with progress_display() as display:
        task = display.add_task("events sent", total=limit)

        def progress(count: int) -> None:
            display.advance(task, count)

        if to is Target.FILES:
            folder: Path = stream.files or context.workspace / "events"
            sent = write_files(batches, folder, context.config.log.partitions, limit, progress)
            OUT.print(f"{sent:,} events written to {folder}", markup=False)
            return
        ERR.print(
            "producer: " + ", ".join(f"{key}={value}" for key, value in PRODUCER_SETTINGS.items()),
            markup=False,
        )
        sent = send_to_kafka(batches, stream.brokers, stream.topic, Pace(rate, limit), progress)
    OUT.print(f"{sent:,} events sent to topic {stream.topic} at {stream.brokers}", markup=False)
