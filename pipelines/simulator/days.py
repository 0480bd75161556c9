"""One block of users on one day: behaviours and impressions by log time, as arrays."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.pipelines.simulator.features import SimulatedFeatures
from uic.pipelines.simulator.impressions import impression_clicks, impressions
from uic.pipelines.simulator.plan import SimulationPlan
from uic.pipelines.simulator.visits import (
    Bargains,
    bargain_clicks,
    joined,
    ordinary_clicks,
    visits_of_day,
    with_funnel,
)
from uic.pipelines.simulator.world import (
    Catalogue,
    Floats,
    Ints,
    Purpose,
    UserBlock,
    random_stream,
    uniform,
)

# Late events were made up to six hours before the log got them; fast clocks run up to four
# minutes ahead: both inside the parser's default limits (7 days, 300 seconds).
_LATE_MS: Final = 6 * 3_600_000
FAST_MS: Final = 240_000
_FAST_PART_OF_LATE: Final = 0.2


@dataclass(frozen=True)
class DayChunk:
    """The behaviours and impressions of one block on one day, each by log time.

    Args:
        user_ids, item_ids, category_ids: (behaviours,), int64.
        behaviors: (behaviours,), int8, index into `uic.pipelines.log.schemas.BEHAVIORS`.
        event_times_ms, log_times_ms: (behaviours,), int64.
        impression_user_ids, …_item_ids, …_category_ids, …_times_ms: (impressions,), int64.
        clicked: (impressions,), bool.
        click_probability: (impressions,), float32: the probability `clicked` was drawn with.
        unaided_probability: (impressions,), float32: the same without what features say.
        positions: (impressions,), int64, where each was shown; None without features.
    """

    user_ids: Ints
    item_ids: Ints
    category_ids: Ints
    behaviors: NDArray[np.int8]
    event_times_ms: Ints
    log_times_ms: Ints
    impression_user_ids: Ints
    impression_item_ids: Ints
    impression_category_ids: Ints
    impression_times_ms: Ints
    clicked: NDArray[np.bool_]
    click_probability: Floats
    unaided_probability: Floats
    positions: Ints | None


def day_chunk(
    plan: SimulationPlan,
    catalogue: Catalogue,
    block: UserBlock,
    day: int,
    bargains: Bargains | None,
    *,
    features: SimulatedFeatures | None = None,
) -> DayChunk:
    """Simulate one block on one day; `bargains` on a sale day, else None."""
    stream = random_stream(plan.seed, block.number, day, Purpose.DAY)
    catalogue = catalogue.on(day)
    sale = bargains is not None
    visits = visits_of_day(plan, block, stream, day, sale=sale)
    strengths = block.strengths(day)
    if bargains is None:
        clicks = ordinary_clicks(catalogue, block, strengths, visits, stream)
    else:
        clicks = bargain_clicks(bargains, visits, stream)
    shown = impressions(
        plan,
        catalogue,
        block,
        strengths=strengths,
        visits=visits,
        bargains=bargains,
        stream=stream,
        features=None if features is None else features.on(plan, block, day),
    )
    clicks = joined(clicks, impression_clicks(shown, stream))
    acts, codes = with_funnel(clicks, stream, sale=sale)
    order = np.argsort(acts.times_ms, kind="stable")
    rows, log_times_ms = acts.rows[order], acts.times_ms[order]
    shown_order = np.argsort(shown.acts.times_ms, kind="stable")
    shown_rows = shown.acts.rows[shown_order]
    return DayChunk(
        user_ids=block.user_ids[acts.users[order]],
        item_ids=catalogue.item_ids[rows],
        category_ids=catalogue.category_of_row[rows] + 1,
        behaviors=codes[order],
        event_times_ms=_event_times(plan, log_times_ms, stream),
        log_times_ms=log_times_ms,
        impression_user_ids=block.user_ids[shown.acts.users[shown_order]],
        impression_item_ids=catalogue.item_ids[shown_rows],
        impression_category_ids=catalogue.category_of_row[shown_rows] + 1,
        impression_times_ms=shown.acts.times_ms[shown_order],
        clicked=shown.clicked[shown_order],
        click_probability=shown.probability[shown_order],
        unaided_probability=shown.unaided[shown_order],
        positions=None if shown.positions is None else shown.positions[shown_order],
    )


def _event_times(plan: SimulationPlan, log_times_ms: Ints, stream: np.random.Generator) -> Ints:
    """Event times: the log time, but for a `late_share` of late arrivals and fast clocks."""
    if plan.late_share == 0:
        return log_times_ms
    count = len(log_times_ms)
    odd = uniform(stream, count) < plan.late_share
    fast = uniform(stream, count) < _FAST_PART_OF_LATE
    amount = stream.random(count)
    shift_ms = np.where(fast, amount * FAST_MS, -amount * _LATE_MS).astype(np.int64)
    event_times_ms: Ints = log_times_ms + np.where(odd, shift_ms, 0)
    return event_times_ms
