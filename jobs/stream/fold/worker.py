"""From a plan to the fold function: what a Python worker does when it opens."""

import os

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from uic.feature_repo.store.connection import address_of, connect
from uic.feature_repo.store.generation import Generation
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.sequence_writer import SequenceWriter
from uic.jobs.stream.fold.fitness import UnfitGenerationError, check_state_and_hash
from uic.jobs.stream.fold.fold_function import Exclude, FoldFunction
from uic.jobs.stream.fold.home import home_of
from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.fold.source import guard_of
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.memory.fold import MemoryFolder
from uic.pipelines.log.events import EventParser, ParsedEvents
from uic.pipelines.memories.exclude import Exclusion
from uic.pipelines.sale_calendar import SaleCalendar


def open_store(plan: JobPlan) -> PackedStore:
    """The packed memories that the plan names."""
    password = os.environ.get("UIC_STORE__PASSWORD")
    settings = plan.store.model_copy(update={"password": SecretStr(password or "")})
    address = address_of(settings, plan.address)
    return PackedStore(
        connect(address),
        ViewKeys.of_memories(plan.project),
        address=plan.address,
        keys_per_script=plan.keys_per_script,
        keys_per_read=plan.keys_per_read,
    )


def check_generation(generation: Generation, bundle: Bundle) -> MemoryFolder:
    """The fold of a generation, if it may be folded with this bundle.

    Raises:
        UnfitGenerationError: it is not ready, was made by another bundle, or has memories of
            another width.
    """
    check_state_and_hash(generation, bundle.hash8, bundle.path)
    folder = MemoryFolder(bundle, generation.number)
    if folder.record_bytes != generation.record_bytes:
        msg = (
            f"generation {generation.number} has memories of {generation.record_bytes} bytes, "
            f"{bundle.path} makes {folder.record_bytes}; run the version that built it"
        )
        raise UnfitGenerationError(msg)
    return folder


def make_fold_function(plan: JobPlan) -> FoldFunction:
    """The fold function of a worker, connected to the store.

    Raises:
        UnfitGenerationError: the generation may not be folded with the plan's bundle.
        StoreError: Redis does not answer, or has no such generation.
    """
    store = open_store(plan)
    generations = Generations(store.client, store.keys, plan.address)
    bundle = load_bundle(plan.bundle)
    return FoldFunction(
        parser=EventParser(
            plan.log, [noted.column for noted in plan.columns], lists=bundle.reads_shown
        ),
        columns=plan.columns,
        folder=check_generation(generations.get(plan.generation), bundle),
        store=store,
        epoch=plan.epoch,
        starts=plan.starts,
        start_markers=plan.start_markers,
        offset_gaps=plan.stream.offset_gaps,
        exclude=exclusion(plan),
        home=home_of(plan.stream.partitioner, len(plan.starts)),
        sequences=sequence_writer(plan, store) if plan.stream.sequences else None,
        source=guard_of(plan),
        cache_users=plan.stream.cache_users,
        retry_seconds=plan.stream.retry_seconds,
        position_check=plan.position_check,
    )


def sequence_writer(plan: JobPlan, store: PackedStore) -> SequenceWriter:
    """Where the last events of users are kept: the Redis of the memories."""
    return SequenceWriter(
        store.client,
        plan.project,
        address=plan.address,
        users_per_script=plan.keys_per_script,
    )


def exclusion(plan: JobPlan) -> Exclude | None:
    """What the generation leaves out: by its own rules, and sale days by log time.

    The calendar of today is asked beside the generation's own, which ends when it was built.
    """
    rules = Exclusion.from_json(plan.exclude)
    calendar = SaleCalendar.for_behaviors(plan.sale)
    if not (rules.rules or rules.sale_edges_ms or calendar.sales):
        return None

    def left_out(events: ParsedEvents, log_times_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
        sources = np.array(events.sources, dtype=np.object_)
        return calendar.covers(log_times_ms) | rules.covers(events.user_ids, log_times_ms, sources)

    return left_out
