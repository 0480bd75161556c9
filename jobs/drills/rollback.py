"""The rollback drill: poison a day, notice it, and give each user the memory without it.

`uic drill rollback` runs it in a folder of its own, on embedded Redis, a real Flink stream and the
real ranking service, which is asked for rankings from the first step to the last:

1. A shop at midnight: simulated log, trained model, all memories as generation 1.
2. The day happens and is streamed. A broken producer and a crawler write into it.
3. What streamed becomes log, and the audit looks at it: the store is what the log says, so the
   fault is in the log. AUC says that there is one.
4. Midnight's snapshot and the day so far, less what the exclude rules name, are folded into
   generation 2; meanwhile the day goes on, and so does the poison.
5. Generation 2 is loaded beside the live one, catches up by a stream of its own, and readers turn.
6. Every memory is compared, byte for byte, with a fold of a log that never had the poison.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from uic.feature_repo.store.connection import STORE_FOLDER
from uic.feature_repo.store.opened import OpenedStore, open_memories
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.checks.audit import run_audit
from uic.jobs.drills.clean_log import TOPIC, compare
from uic.jobs.drills.errors import DrillFailedError
from uic.jobs.drills.poison import PoisonedDay, write_rules
from uic.jobs.drills.shop import Shop, ShopSize, build, open_shop, ranking_service
from uic.jobs.drills.steady_requests import Answers, SteadyRequests, wait_for_generation
from uic.jobs.replay.run import wait_until_folded
from uic.jobs.stream.letters.archive import committed_files, file_range
from uic.jobs.stream.letters.compact import compact
from uic.jobs.stream.run.detached import start_stream, stop_stream
from uic.jobs.stream.run.upgrade import CatchUp, take_over
from uic.pipelines.memories.exclude import load_rules

_PATIENCE_SECONDS: Final = 900.0
_LOOK_SECONDS: Final = 0.1
_OLD, _NEW = 1, 2
_CANDIDATES: Final = 20


@dataclass(frozen=True)
class RollbackOptions:
    """What the drill does.

    Args:
        size: of the shop.
        wrong_clicks: of the broken producer, for each user of the day.
        crawler_clicks: in all.
        seed: of log, model and poison.
        exclude: False builds generation 2 without the rules; then the drill must fail.
        meanwhile: False ends the day at noon: nothing streams while it is rolled back.
    """

    size: ShopSize = field(default_factory=ShopSize)
    wrong_clicks: int = 30
    crawler_clicks: int = 3000
    seed: int = 1
    exclude: bool = True
    meanwhile: bool = True


@dataclass(frozen=True)
class Moment:
    """One line of the timeline: seconds since the shop opened, what was done, what was seen."""

    seconds: float
    step: str
    figure: str


@dataclass
class RollbackReport:
    """What happened, and what was compared.

    Attributes:
        timeline: what was done and seen, in order.
        auc: of the next day's impressions, by moment.
        answers: of the service.
        poisoned: memories before the rollback that are not those of a clean log.
        users: with a memory in the clean log, at the end.
        wrong: of them, memories that are not the clean log's.
        extra: users at the end who should have no memory.
    """

    timeline: list[Moment] = field(default_factory=list)
    auc: dict[str, float] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    poisoned: int = 0
    users: int = 0
    wrong: int = 0
    extra: int = 0


@dataclass
class _Drill:
    """A drill under way."""

    shop: Shop
    poison: PoisonedDay
    options: RollbackOptions
    report: RollbackReport
    note: Callable[[str, str], None]

    def happen(self, start_ms: int, end_ms: int) -> str:
        """Append a part of the day to the stream's files; how much, for people."""
        part = self.poison.between(start_ms, end_ms)
        self.shop.events.send([part])
        bad = sum(payload in self.poison.poisoned for payload in part.payloads)
        return f"{len(part.payloads):,} events, {bad:,} of them poisoned"

    def measure(self, url: str, name: str) -> str:
        """AUC of the day after through the service, for people; kept in the report."""
        found, without = self.shop.probe.measure(url)
        self.report.auc[name], self.report.auc["none"] = found, without
        return f"AUC of the next day's impressions {found:.4f} (without memory {without:.4f})"

    def audit(self, only: int | None) -> str:
        """Audit all users, and report the outcome."""
        context = self.shop.context
        found = run_audit(context, context.config.audit, only)
        return "; ".join(
            f"generation {one.number}: {one.mismatches} of {one.users:,} memories are not the log's"
            for one in found
        )


def run_rollback(
    folder: Path, options: RollbackOptions, say: Callable[[str], None]
) -> RollbackReport:
    """Run the drill in `folder`, which must be empty or new.

    Raises:
        DrillFailedError: a memory differs at the end, or a request failed; says how many.
        UicError: a step went wrong.
    """
    workspace = folder / "workspace"
    report = RollbackReport()
    with ExitStack() as stack:
        server = EmbeddedRedis(workspace / STORE_FOLDER)
        server.start()
        stack.callback(server.stop)
        # Step 1
        say("simulating a shop, training its model, folding all memories up to midnight")
        shop = open_shop(workspace, options.size, options.seed)
        poison = PoisonedDay.make(
            shop.day,
            shop.categories,
            wrong_clicks=options.wrong_clicks,
            crawler_clicks=options.crawler_clicks,
            seed=options.seed,
        )
        url = stack.enter_context(ranking_service(shop.context))
        began = time.monotonic()

        def note(step: str, figure: str) -> None:
            moment = Moment(time.monotonic() - began, step, figure)
            report.timeline.append(moment)
            say(f"{moment.seconds:6.1f} s  {step}: {figure}")

        drill = _Drill(shop, poison, options, report, note)
        store = stack.enter_context(open_memories(shop.context.config.store, workspace))
        for generation in (_OLD, _NEW):
            stack.callback(stop_stream, shop.context, generation)
        items = np.unique(shop.probe.item_ids)[:_CANDIDATES]
        with SteadyRequests(url, np.unique(shop.probe.user_ids), items) as requests:
            report.answers = requests.answers
            _poisoned(drill, store, url)
            _rolled_back(drill, store, url, requests)
        _over(drill, store)
    return report


def _poisoned(drill: _Drill, store: OpenedStore, url: str) -> None:
    """Steps 2 and 3."""
    context, day, note = drill.shop.context, drill.shop.day, drill.note
    note("midnight", drill.measure(url, "midnight"))
    happened = drill.happen(day.start_ms, _noon(drill))
    start_stream(context, _OLD)
    wait_until_folded(context, store, _OLD, drill.shop.events, _PATIENCE_SECONDS)
    note("the morning is streamed", happened)
    note("the rankings of users who are not themselves", drill.measure(url, "poisoned"))
    users, wrong, extra = compare(drill.shop, drill.poison, store, _OLD)
    drill.report.poisoned = wrong + extra
    note(
        "compared with a log that never had the poison",
        f"{wrong:,} of {users:,} memories differ, {extra:,} should not be",
    )
    if not drill.report.poisoned:
        msg = "the poison changed no memory, so rolling back would show nothing; give it more"
        raise DrillFailedError(msg)
    _wait_until_archived(drill)
    compact(context, day.day)
    note("uic log compact; uic audit", drill.audit(_OLD))


def _rolled_back(drill: _Drill, store: OpenedStore, url: str, requests: SteadyRequests) -> None:
    """Steps 4 and 5."""
    context, day, note = drill.shop.context, drill.shop.day, drill.note
    if drill.options.meanwhile:
        note("the afternoon happens meanwhile", drill.happen(_noon(drill), day.end_ms))
    else:
        stop_stream(context, _OLD)
    rules = context.workspace / "exclude.yaml"
    write_rules(rules)
    snapshot = build(
        context,
        day.day,
        generation=_NEW,
        start=drill.shop.midnight.path,
        rules=load_rules(rules) if drill.options.exclude else (),
    )
    events = snapshot.manifest["events"]
    note(
        f"uic memories build --from {drill.shop.midnight.name}"
        + (f" --exclude {rules.name}" if drill.options.exclude else ""),
        f"{events['folded']:,} events folded, {events['excluded']:,} left out",
    )
    take_over(
        context,
        store,
        snapshot,
        CatchUp(max_lag_events=0, seconds=_PATIENCE_SECONDS),
        lambda line: note("load, catch up, switch", line),
    )
    if not wait_for_generation(requests, _NEW, _PATIENCE_SECONDS):
        msg = f"generation {_NEW} is live, but no answer used it in {_PATIENCE_SECONDS:.0f} s"
        raise DrillFailedError(msg)
    if drill.options.meanwhile:
        wait_until_folded(context, store, _NEW, drill.shop.events, _PATIENCE_SECONDS)
    note("the rankings after it", drill.measure(url, "rolled back"))
    found = requests.answers
    note(
        "the service, all the while",
        f"{found.asked:,} requests, {len(found.failed)} failed, {found.degraded.total()} degraded",
    )


def _over(drill: _Drill, store: OpenedStore) -> None:
    """Step 6."""
    context, report = drill.shop.context, drill.report
    for generation in (_OLD, _NEW):
        stop_stream(context, generation)
    if drill.options.meanwhile:
        compact(context, drill.shop.day.day)
    drill.note("uic log compact; uic audit", drill.audit(None))
    report.users, report.wrong, report.extra = compare(drill.shop, drill.poison, store, _NEW)
    drill.note(
        "compared with a log that never had the poison",
        f"{report.wrong:,} of {report.users:,} memories differ, {report.extra:,} should not be",
    )
    if report.wrong or report.extra:
        msg = (
            f"{context.workspace}: {report.wrong} of {report.users} memories differ from those of "
            f"a log without the poison, and {report.extra} users should have none"
        )
        raise DrillFailedError(msg)
    if report.answers.failed:
        failed = report.answers.failed
        msg = f"{len(failed)} requests failed meanwhile, the first with {failed[0]}"
        raise DrillFailedError(msg)


def _wait_until_archived(drill: _Drill) -> None:
    """Until the archive has every event file's last event: Flink commits it with a checkpoint."""
    archive = drill.shop.context.workspace / "stream" / "archive"
    ends = drill.shop.events.ends()
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until:
        reached = {
            at: max(
                (file_range(path)[1] for path in committed_files(archive, TOPIC, at)), default=-1
            )
            for at in ends
        }
        if all(reached[at] + 1 >= end for at, end in ends.items()):
            return
        time.sleep(_LOOK_SECONDS)
    msg = (
        f"{archive}: holds events up to {reached} after {_PATIENCE_SECONDS:.0f} s, the log ends at "
        f"{ends}"
    )
    raise DrillFailedError(msg)


def _noon(drill: _Drill) -> int:
    return (drill.shop.day.start_ms + drill.shop.day.end_ms) // 2
