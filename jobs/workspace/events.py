"""Behaviour events on their way: a development broker, producers, and dead letters."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.workspace.base import WorkspacePanel
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.jobs.stream.letters.dead_letters import DeadLetter
    from uic.jobs.stream.topics.kafka_server import KafkaServer
    from uic.jobs.stream.topics.produce import Outgoing


@dataclass(frozen=True)
class Produced:
    """Events that were sent: how many, and to which topic at which brokers or folder."""

    events: int
    to: str


@dataclass(frozen=True)
class Retried:
    """Dead letters that were sent again, and those without a user id to key them by."""

    sent: int
    without_user: int


class EventsPanel(WorkspacePanel):
    """Methods of `Workspace.events`."""

    def broker(self, port: int = 9092) -> "KafkaServer":
        """A real Kafka broker on loopback, for development; start it with `with`.

        Its data is in `kafka/` of the workspace. Needs Java and jars (`fetch_jars`).

        Args:
            port: TCP port; 0 takes a free one.
        """
        from uic.jobs.stream.topics.java import jars_root
        from uic.jobs.stream.topics.kafka_server import KafkaServer

        root = jars_root(self.config.stream.jars_folder, self.path)
        return KafkaServer(self.path / "kafka", port, jars_root=root)

    def fetch_jars(self) -> Mapping[str, Path]:
        """Fetch the jars of Kafka and of Flink's connector with Maven, into the workspace.

        Returns:
            The folder of each kind, `kafka` and `flink`.

        Raises:
            BadInputError: there is no Maven, or it fails.
        """
        from uic.jobs.stream.topics.java import WORKSPACE_JARS, fetch_jars

        return fetch_jars(self.path / WORKSPACE_JARS)

    def produce(
        self,
        to: str = "kafka",
        *,
        rate: float = 0.0,
        limit: int | None = None,
        simulate_users: int | None = None,
        days: int = 70,
        seed: int = 1,
        keep_times: bool = False,
        progress: Progress | None = None,
    ) -> Produced:
        """Send the event log, or simulated events, keyed by user id.

        Args:
            to: kafka, the topic of the settings, or files.
            rate: events a second; 0: as fast as it goes.
            limit: events in all; None: all.
            simulate_users: send simulated events of so many users, not the log.
            days: simulated days.
            seed: of the simulation.
            keep_times: to kafka: keep event times; else events happen when they are sent.
            progress: told the events that were sent.

        Raises:
            BadInputError: there are no events, or no broker.
            DeliveryError: the broker refused an event.
        """
        from uic.jobs.stream.topics.brokers import brokers_of
        from uic.jobs.stream.topics.produce import Pace, send_to_kafka, write_files

        report, sent = progress or no_progress, 0

        def advance(count: int) -> None:
            nonlocal sent
            sent += count
            report("events sent", sent, limit)

        stream = self.config.stream
        now = to == "kafka" and not keep_times
        batches = self._payloads(simulate_users, days, seed, now=now)
        if to == "files":
            folder = stream.files or self.path / "events"
            events = write_files(batches, folder, self.config.log.partitions, limit, advance)
            return Produced(events, str(folder))
        pace = Pace(rate, limit)
        events = send_to_kafka(batches, brokers_of(stream), stream.topic, pace, advance)
        return Produced(events, f"topic {stream.topic} at {stream.brokers}")

    def dead_letters(self, reason: str | None = None) -> "list[DeadLetter]":
        """Events that the stream refused, by log time.

        Args:
            reason: only letters with this reason; None: all.

        Raises:
            BadInputError: a file of letters cannot be read.
        """
        from uic.jobs.stream.letters.dead_letters import letters_of

        letters = [one for one in letters_of(self.context) if reason in (None, one.reason)]
        return sorted(letters, key=lambda letter: letter.log_time_ms)

    def retry(self, reason: str | None = None) -> Retried:
        """Send dead letters to the topic again, each once; those without a user id stay.

        Args:
            reason: only letters with this reason; None: all.

        Raises:
            BadInputError: no broker, or no such topic.
            DeliveryError: the broker refused an event.
        """
        from uic.jobs.stream.letters.dead_letters import note_retried, retried, sendable
        from uic.jobs.stream.topics.brokers import brokers_of
        from uic.jobs.stream.topics.produce import Pace, send_to_kafka

        before = retried(self.context)
        chosen = [one for one in self.dead_letters(reason) if one.place not in before]
        outgoing, sent = sendable(chosen)
        if sent:
            stream = self.config.stream
            send_to_kafka([outgoing], brokers_of(stream), stream.topic, Pace())
            note_retried(self.context, before | {letter.place for letter in sent})
        return Retried(len(sent), len(chosen) - len(sent))

    def _payloads(
        self, simulate_users: int | None, days: int, seed: int, *, now: bool
    ) -> "Iterator[Outgoing]":
        from uic.jobs.stream.topics.produce import log_payloads, simulated_payloads
        from uic.pipelines.log.event_log import EventLog

        if simulate_users is not None:
            return simulated_payloads(simulate_users, days, seed, now=now)
        log = EventLog(self.context.log)
        if not log.behavior_files():
            msg = f"{self.context.log}: no events to send; import some, or give --simulate-users"
            raise BadInputError(msg)
        return log_payloads(log, now=now)
