"""Three public logs as one race: events that states are made of, and rows that are ranked.

Rows are split by time: the last days are the test, those before it choose settings and epochs, and
all days before that are trained on. In a shop's log, each event of a day is a positive, beside four
items drawn from the events of the same day that the user did not take that day: an item's
popularity is worth nothing. KuaiRand's rows are the videos that were shown, clicked or not.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NEGATIVES = 4
TRAIN, VALID, TEST, LISTS = 0, 1, 2, 3
SHOWN, CLICK = "shown", "click"


@dataclass(frozen=True)
class RaceLog:
    """A log as the race needs it.

    Attributes:
        name: of the data.
        events: sorted by user and time: `user`, `time_ms`, `behavior` (a name), and the ids of the
            event (`item` and the names in `keys`). A shown video is an event of behaviour "shown".
        rows: sorted by user, time and split: as the events, with `label`, `split` (TRAIN, VALID,
            TEST), and `request`, the number of the list whose order `auc_within` judges. Rows of
            split LISTS are the test rows again, each as of its list's first moment: where a list is
            shown bit by bit, a state has seen labels of the list itself, and orders it by them.
        keys: the id columns beside `item` that are counted by; the first is the category.
        sizes: distinct ids of `item` and of each key.
        days: of training, validation and test.
    """

    name: str
    events: pd.DataFrame
    rows: pd.DataFrame
    keys: tuple[str, ...]
    sizes: dict[str, int] = field(default_factory=dict)
    days: tuple[int, int, int] = (0, 0, 0)

    @property
    def listed(self) -> int:
        """The split that `auc_within` is judged on."""
        return LISTS if bool((self.rows.split == LISTS).any()) else TEST

    @property
    def shows(self) -> bool:
        """Whether it is known what was shown and not taken."""
        return bool((self.events.behavior == SHOWN).any())

    def taken(self) -> pd.DataFrame:
        """The events that a history is made of: all but what was merely shown."""
        return self.events[self.events.behavior != SHOWN]

    def drawn(self, limits: tuple[int, int, int]) -> "RaceLog":
        """The same log with fewer rows: moments drawn at random, each with all of its rows.

        Args:
            limits: of training, validation and test, in rows; about as many are kept.
        """
        moment = self.rows.groupby(["split", "user", "time_ms"]).ngroup().to_numpy()
        counts = np.bincount(moment)
        splits = np.zeros(counts.size, dtype=np.int64)
        splits[moment] = self.rows.split.to_numpy()
        generator = np.random.default_rng(1)
        kept = np.zeros(counts.size, dtype=np.bool_)
        for split, limit in enumerate(limits):
            order = generator.permutation(np.flatnonzero(splits == split))
            kept[order[: np.searchsorted(np.cumsum(counts[order]), limit) + 1]] = True
        # All lists stay: they are judged on their own, and a list in part would be another one.
        kept[splits == LISTS] = True
        return replace(self, rows=self.rows[kept[moment]].reset_index(drop=True))


def online_retail(shared: Path) -> RaceLog:
    """Invoices of a shop; the last word of a description stands in for a category."""
    table = pq.read_table(shared / "online_retail/transactions.parquet").to_pandas()
    bought = table[(table.quantity > 0) & ~table.invoice.str.startswith("C")]
    words = bought.description.fillna("").str.strip().str.split().str[-1].fillna("")
    frame = pd.DataFrame(
        {
            "user": _numbers(bought.user_id),
            "time_ms": bought.ts.to_numpy().astype("datetime64[ms]").astype(np.int64),
            "behavior": "buy",
            "item": _numbers(bought.stock_code),
            "category": _numbers(words),
        }
    )
    first = frame.groupby("item").category.first()  # a few descriptions changed
    frame["category"] = first.to_numpy()[frame.item]
    frame = frame.drop_duplicates(["user", "item", "time_ms"])
    events = frame.sort_values(["user", "time_ms", "item"]).reset_index(drop=True)
    return _next_item("online_retail", events, ("category",), warm_days=30)


def ali_brand(shared: Path) -> RaceLog:
    """Clicks and purchases of brands, by day; a brand has no category."""
    table = pq.read_table(shared / "ali_brand_2013/behaviors.parquet").to_pandas()
    types = np.array(["click", "buy", "favourite", "cart"])
    frame = pd.DataFrame(
        {
            "user": _numbers(table.user_id),
            "time_ms": table.date.to_numpy().astype("datetime64[ms]").astype(np.int64),
            "behavior": types[table.type],
            "item": _numbers(table.brand_id),
            "row": table.row,
        }
    )
    events = frame.sort_values(["user", "time_ms", "row"]).reset_index(drop=True)
    return _next_item("ali_brand", events.drop(columns="row"), (), warm_days=14)


def kuairand(shared: Path) -> RaceLog:
    """Videos shown to users, clicked or not; keys are the video's first tag and its author."""
    table = pq.read_table(shared / "kuairand_pure_14d/impressions.parquet").to_pandas()
    rows = pd.DataFrame(
        {
            "user": _numbers(table.user_id),
            "time_ms": table.time_ms,
            "item": _numbers(table.video_id),
            "category": _numbers(table.tag),
            "author": _numbers(table.author_id),
            "label": table.is_click.astype(np.float32),
            "day": pd.factorize(table.date, sort=True)[0],
        }
    )
    rows = rows.sort_values(["user", "time_ms"], kind="stable").reset_index(drop=True)
    last = int(rows.day.max())
    rows["split"] = np.select([rows.day == last, rows.day == last - 1], [TEST, VALID], TRAIN)
    # The log does not say which videos one request asked for: a user's hour stands in for it.
    rows["request"] = rows.groupby(["user", rows.time_ms // HOUR_MS]).ngroup()
    lists = rows[rows.split == TEST].assign(split=LISTS)
    lists["time_ms"] = lists.groupby("request").time_ms.transform("min")
    rows, shown = pd.concat([rows, lists]), rows
    rows = rows.sort_values(["user", "time_ms", "split"], kind="stable").reset_index(drop=True)
    ids = ["user", "time_ms", "item", "category", "author"]
    clicked = shown[shown.label > 0][ids].assign(behavior=CLICK)
    # A click comes after the showing that it answers, at the same time.
    events = pd.concat([shown[ids].assign(behavior=SHOWN), clicked])
    events = events.sort_values(["user", "time_ms"], kind="stable").reset_index(drop=True)
    rows = rows.drop(columns="day")
    return _log("kuairand", events, rows, ("category", "author"), (last - 1, 1, 1))


LOGS: dict[str, Callable[[Path], RaceLog]] = {
    "online_retail": online_retail,
    "ali_brand": ali_brand,
    "kuairand": kuairand,
}


def _next_item(
    name: str,
    events: pd.DataFrame,
    keys: tuple[str, ...],
    *,
    warm_days: int,
    valid_days: int = 7,
    test_days: int = 14,
) -> RaceLog:
    """Each event of a day a positive, with negatives of the same day.

    Args:
        name: of the data.
        events: as in `RaceLog`.
        keys: as in `RaceLog`.
        warm_days: the log's first days, which are history only.
        valid_days: that choose settings.
        test_days: the last.
    """
    generator = np.random.default_rng(0)
    ids = ["item", *keys]
    positives = events.drop_duplicates(["user", "item", "time_ms"]).drop(columns="behavior")
    days = (positives.time_ms // DAY_MS).to_numpy()
    width = int(events.item.max()) + 1
    parts = []
    for day in np.unique(days[days >= days.min() + warm_days]):
        shown = positives[days == day]
        taken = np.unique(shown.user.to_numpy() * width + shown.item.to_numpy())
        parts.append(shown.assign(label=np.float32(1)))
        for _ in range(NEGATIVES):
            drawn = generator.integers(0, len(shown), len(shown))
            other = shown.assign(label=np.float32(0))
            other[ids] = shown[ids].to_numpy()[drawn]
            pairs = other.user.to_numpy() * width + other.item.to_numpy()
            parts.append(other[~np.isin(pairs, taken)])
    rows = pd.concat(parts).sort_values(["user", "time_ms", "item"], kind="stable")
    rows = rows.reset_index(drop=True)
    left = days.max() - (rows.time_ms // DAY_MS).to_numpy()
    rows["split"] = np.select(
        [left < test_days, left < test_days + valid_days], [TEST, VALID], TRAIN
    )
    rows["request"] = rows.groupby(["user", "time_ms"]).ngroup()
    trained = int(days.max() - days.min()) + 1 - warm_days - valid_days - test_days
    return _log(name, events, rows, keys, (trained, valid_days, test_days))


def _log(
    name: str,
    events: pd.DataFrame,
    rows: pd.DataFrame,
    keys: tuple[str, ...],
    days: tuple[int, int, int],
) -> RaceLog:
    sizes = {key: int(max(events[key].max(), rows[key].max())) + 1 for key in ("item", *keys)}
    return RaceLog(name, events, rows, keys, sizes, days)


def _numbers(values: pd.Series) -> NDArray[np.int64]:
    """Ids as numbers from 0 in the order of their first occurrence."""
    return pd.factorize(values)[0].astype(np.int64)
