"""Whether a topic is still the one that an attempt was planned for, asked while the stream runs.

A topic that is deleted and made again under the same name goes on for a consumer as if nothing had
happened: its next offset is a later event's of the new topic. So a worker asks who the topic is
*after* it was given a batch and before it writes it. An answer that is younger than the batch and
names the planned topic means that no event of the batch is a later topic's
(docs/adr/015-identity-is-asked-after-the-read.md).
"""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined] # two miss in its __all__
    AdminClient,
    ConfigResource,
    ResourceType,
)

from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.kafka_link import Link
from uic.jobs.stream.topics.kafka_topic import (
    NoTopicError,
    TopicError,
    answer,
    appends_time,
    url_safe,
)

_TIMEOUT_SECONDS: Final = 3.0


class TopicChangedError(TopicError):
    """The topic is another one than when the attempt was planned, or is set up otherwise."""

    # The next plan says what is to be done about it, in full.
    replanned = True


@dataclass
class TopicGuard:
    """Holds a topic against what it was when it was planned for.

    Args:
        brokers: where Kafka is and how to get in.
        name: of the topic.
        topic_id: Kafka's id of it then.
        partitions: that it had.
    """

    brokers: Brokers
    name: str
    topic_id: str
    partitions: int

    def __post_init__(self) -> None:
        """Connect when it is asked first."""
        self._link = Link(self.brokers)
        self._admin: AdminClient | None = None
        self._asked: tuple[Future[Any], Future[Any]] | None = None

    def ask(self) -> None:
        """Send the questions; the answers are waited for in `confirm`."""
        if self._admin is None:
            self._admin = self._link.admin()
        self._link.forget()
        resource = ConfigResource(ResourceType.TOPIC, self.name)
        self._asked = (
            self._admin.describe_topics(
                TopicCollection([self.name]), request_timeout=_TIMEOUT_SECONDS
            )[self.name],
            self._admin.describe_configs([resource], request_timeout=_TIMEOUT_SECONDS)[resource],
        )

    def confirm(self) -> None:
        """Wait for the answers to the last `ask`, which is made now if there was none.

        Raises:
            TopicChangedError: the topic is gone or another one, has other partitions, or keeps its
                producers' times.
            NoBrokerError: none answers.
            BrokerAccessError: the broker does not let us in any more.
        """
        if self._asked is None:
            self.ask()
        assert self._asked is not None  # noqa: S101 - asked above
        (topic, settings), self._asked = self._asked, None
        try:
            described = answer(topic, self._link, self.brokers, self.name, 2 * _TIMEOUT_SECONDS)
            times = answer(settings, self._link, self.brokers, self.name, 2 * _TIMEOUT_SECONDS)
        except NoTopicError as error:
            raise TopicChangedError(str(error)) from error
        topic_id = url_safe(described.topic_id)
        if topic_id != self.topic_id:
            msg = (
                f"topic {self.name} was made anew under the running stream: its id is {topic_id}, "
                f"this attempt reads {self.topic_id}"
            )
            raise TopicChangedError(msg)
        if len(described.partitions) != self.partitions:
            msg = (
                f"the topic has {len(described.partitions)} partitions, its epoch has "
                f"{self.partitions}: users have moved between partitions, and what is sent to "
                "further ones is not read"
            )
            raise TopicChangedError(msg)
        if not appends_time(times):
            msg = (
                f"topic {self.name} keeps its producers' times by now; log time must be the "
                "broker's: set message.timestamp.type=LogAppendTime on the topic"
            )
            raise TopicChangedError(msg)
