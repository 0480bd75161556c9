"""The guard of a plan's topic, for workers and for the supervisor, which loads no torch."""

from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.topics.brokers import brokers_of
from uic.jobs.stream.topics.topic_guard import TopicGuard


def guard_of(plan: JobPlan) -> TopicGuard | None:
    """Who tells whether the plan's topic is still the same; None for files."""
    if plan.topic_id is None:
        return None
    return TopicGuard(brokers_of(plan.stream), plan.stream.topic, plan.topic_id, len(plan.starts))
