"""What the broker says of the topic whose events an audit has judged.

An audit folds what log and archive have. If the topic that the broker has is another one than the
log's, or has partitions that the log knows nothing of, the store is not what producers have sent,
whatever the log says.
"""

from dataclasses import dataclass

from uic.jobs.config.context import Context
from uic.jobs.stream.run.lag import unread_of
from uic.jobs.stream.topics.brokers import brokers_of
from uic.jobs.stream.topics.kafka_link import BrokerAccessError, NoBrokerError
from uic.jobs.stream.topics.kafka_topic import NoTopicError, Topic, describe_topic
from uic.pipelines.log.event_log import Epoch, EventLog


@dataclass(frozen=True)
class TopicAudit:
    """The topic beside the log.

    Attributes:
        said: what was asked and answered, for people.
        fault: why the audit cannot say yes; empty for none.
    """

    said: str
    fault: str = ""


def audit_topic(context: Context, *, ask: bool = True) -> TopicAudit | None:
    """Ask the broker for the topic's id, partitions and ends; None if no topic was streamed.

    Args:
        context: whose log and broker.
        ask: False judges without the broker, and says so.
    """
    stream = context.config.stream
    epochs = EventLog(context.log).epochs()
    streamed = [
        epoch
        for epoch in epochs
        if epoch.kind == "topic" and epoch.name.rpartition(".")[0] == stream.topic
    ]
    if stream.source != "kafka" or not streamed:
        return None
    if not ask:
        return TopicAudit(f"topic {stream.topic} was not asked, as wished")
    try:
        topic = describe_topic(brokers_of(stream), stream.topic)
    except (NoBrokerError, BrokerAccessError) as error:
        text = f"was not asked, so it is not known whether it is still the log's: {error}"
        text = f"topic {stream.topic} {text}"
        return TopicAudit(text, f"{text}; --without-broker audits all the same")
    except NoTopicError as error:
        return TopicAudit(str(error), str(error))
    epoch = topic.epoch_in(epochs)
    unread, why = unread_of(topic, epochs)
    ends = ", ".join(f"{partition}: {end:,}" for partition, end in sorted(topic.end.items()))
    said = f"topic {topic.name}, id {topic.topic_id}, ends at {ends}"
    if epoch is None or why:
        return TopicAudit(said, f"{why}; {sum(unread.values()):,} events of it are not in the log")
    return TopicAudit(said, _shorter(topic, epoch))


def _shorter(topic: Topic, epoch: Epoch) -> str:
    """What to say of a topic that ends before the log does; empty if it does not."""
    for partition, last in sorted(epoch.last_offsets.items()):
        if topic.end[partition] <= last:
            return (
                f"topic {topic.name}, partition {partition} ends before offset "
                f"{topic.end[partition]}, the log has up to {last}: it has lost events"
            )
    return ""
