"""MIND: impressions of a news site with clicks (`behaviors.tsv`), and what each user read before.

A line is an impression of many news: `number, user, time, history, N1-0 N2-1`, tabs between. Each
news is an impression of its own, and a click on one a behaviour. A user's history, which is the
same in all of the user's lines, has an order and no times: it becomes clicks one second apart that
end before the first time of all files. The category of a news is that of `news.tsv`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.pipelines.importers.checked import Columns, accept, payload_of
from uic.pipelines.importers.input_files import input_files
from uic.pipelines.importers.source import (
    FAULTS,
    NOT_UTF8,
    Batch,
    IdNumbers,
    Rejects,
    UnheardRejects,
)
from uic.pipelines.importers.text import TableRows, csv_rows, texts
from uic.pipelines.importers.times import EventTimes
from uic.pipelines.log.columns import one_chunk
from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.log.text_ids import Kind

UNKNOWN_CATEGORY: Final = "unknown"
_NAMES: Final = ("impression", "user", "time", "history", "shown")
_NEWS_NAMES: Final = (
    "news", "category", "subcategory", "title", "abstract", "url", "in_title", "in_abstract",
)  # fmt: skip
_TIME: Final = "%m/%d/%Y %I:%M:%S %p"
_NEWS: Final = pa.schema([("item_id", pa.int64()), ("category_id", pa.int64())])
_LABELLED: Final = r"^\S+-[01]$"
_CLICK: Final = BEHAVIORS.index("click")
_BEHAVIOR: Final = ["user_id", "item_id", "category_id", "behavior", "event_time"]
_MISSING: Final = FAULTS.index("missing_field")
_NOT_UTF8: Final = FAULTS.index(NOT_UTF8)
_WRONG_TYPE: Final = FAULTS.index("wrong_type")


class MindNews:
    """Files of behaviours and of news, compressed or not; ids and categories are texts.

    Args:
        behaviors: `behaviors.tsv` of one part or of several, the older first.
        news: `news.tsv` of these parts; without any, all items are in category 0.
        prior_history: make clicks of the histories.
        time_zone: of the times; None is UTC in a log of UTC days, and refused in any other.
        log_zone: whose days the log has.

    Raises:
        BadInputError: a file is not there.
    """

    name = "mind"
    has_impressions = True

    def __init__(
        self,
        behaviors: Sequence[Path],
        news: Sequence[Path] = (),
        *,
        prior_history: bool = True,
        time_zone: str | None = None,
        log_zone: str = "UTC",
    ) -> None:
        self._behaviors = [file.path for file in input_files(behaviors)]
        self._news = [file.path for file in input_files(news)] if news else []
        self._prior, self._zones = prior_history, (time_zone, log_zone)
        prior = (
            "Behaviours of source mind-prior come from the histories, which have no times: their "
            "order is real, their spacing (one second, ending before the first line) is not."
        )
        self.notes: Sequence[str] = (
            "A click on an impression is a behaviour at the impression's time.",
            prior if prior_history else "The histories were left out.",
        )
        self.total = sum(path.stat().st_size for path in self._behaviors)

    def sources(self) -> Sequence[Path]:
        """The input files."""
        return [*self._behaviors, *self._news]

    def batches(self, rejects: Rejects, ids: IdNumbers) -> Iterator[Batch]:
        """The news, then of each part of a file the histories and the impressions."""
        categories = _NewsCategories(self._news, rejects, ids)
        if self._news:
            yield Batch(0, items=categories.items())
        begin_ms = self._begin_ms() if self._prior else 0
        seen, done = np.empty(0, np.int64), 0
        for path in self._behaviors:
            times = self._times(path)
            for rows in csv_rows(path, _NAMES, _NAMES, rejects, delimiter="\t", quotes=False):
                lines = _Impressions(rows, times, ids)
                if self._prior:
                    new = lines.first_rows(seen)
                    seen = np.union1d(seen, lines.users[new])
                    earlier = lines.earlier(new, begin_ms, categories, ids)
                    good = accept(path, earlier, rejects)
                    yield Batch(done + rows.done, behaviors=_from(good, "mind-prior"))
                shown, clicked = lines.shown(categories, ids)
                good = accept(path, shown, rejects, {"clicked": pa.array(clicked)})
                clicks = good.filter(good["clicked"]).select(_BEHAVIOR)
                yield Batch(
                    done + rows.done,
                    behaviors=_from(clicks, "mind-log"),
                    impressions=good.drop_columns(["behavior"]),
                )
            rejects.remark(times.remark("the file"))
            done += path.stat().st_size

    def _times(self, path: Path) -> EventTimes:
        return EventTimes(f"{path}: column 3, the time", _TIME, *self._zones)

    def _begin_ms(self) -> int:
        """The first time of all files.

        Raises:
            BadInputError: no line has one.
        """
        first: list[int] = []
        for path in self._behaviors:
            times = self._times(path)
            for rows in csv_rows(
                path, _NAMES, ["time"], UnheardRejects(), delimiter="\t", quotes=False
            ):
                faults = np.zeros(len(rows.lines), np.int8)
                found = times.read(one_chunk(rows.columns, "time"), faults)[faults == 0]
                first += [int(found.min())] if len(found) else []
        if not first:
            msg = (
                f"{self._behaviors[0]}: no line has a time like 11/15/2019 8:55:22 AM in the third "
                "of five columns between tabs; is it the behaviors.tsv of MIND?"
            )
            raise BadInputError(msg)
        return min(first)


class _NewsCategories:
    """The category of each news, by binary search; all news are in category 0 without files."""

    def __init__(self, files: Sequence[Path], rejects: Rejects, ids: IdNumbers) -> None:
        wanted = ["news", "category"]
        found = [
            _news_of(rows, ids)
            for path in files
            for rows in csv_rows(path, _NEWS_NAMES, wanted, rejects, delimiter="\t", quotes=False)
        ]
        table = pa.concat_tables([_NEWS.empty_table(), *found])
        numbers, first = np.unique(table["item_id"].to_numpy(), return_index=True)
        self._items, self._categories = numbers, table["category_id"].to_numpy()[first]
        unknown = pa.array([UNKNOWN_CATEGORY])
        self._unknown = int(ids.numbers("category", unknown)[0]) if files else 0

    def items(self) -> pa.Table:
        """All news."""
        return pa.table([self._items, self._categories], schema=_NEWS)

    def of(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """The category of each, (items,)."""
        if not len(self._items):
            return np.full(len(items), self._unknown)
        at = np.searchsorted(self._items, items).clip(max=len(self._items) - 1)
        known = self._items[at] == items
        categories: NDArray[np.int64] = np.where(known, self._categories[at], self._unknown)
        return categories


def _news_of(rows: TableRows, ids: IdNumbers) -> pa.Table:
    """News that have a number and a category."""
    words = [texts(one_chunk(rows.columns, name))[0] for name in ("news", "category")]
    whole = pc.and_(*(pc.not_equal(word, "") for word in words))
    news, categories = (word.filter(whole) for word in words)
    columns = [ids.numbers("item", news), ids.numbers("category", categories)]
    return pa.table(columns, schema=_NEWS)


class _Impressions:
    """Some lines of a file of behaviours; `users` are their numbers, -1 where a line is broken."""

    def __init__(self, rows: TableRows, times: EventTimes, ids: IdNumbers) -> None:
        self._rows = rows
        self._faults = np.zeros(len(rows.lines), np.int8)
        self._times = times.read(one_chunk(rows.columns, "time"), self._faults)
        names = self._words("user")
        self._faults[pc.equal(names, "").to_numpy(zero_copy_only=False)] = _MISSING
        self.users = _numbers(ids, "user", names, self._faults)

    def _words(self, name: str) -> pa.Array:
        words, undecodable = texts(one_chunk(self._rows.columns, name))
        self._faults[undecodable] = _NOT_UTF8
        return pc.utf8_trim_whitespace(words)

    def first_rows(self, seen: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first line of each user who is not in `seen`, ascending."""
        users, first = np.unique(self.users, return_index=True)
        new = (users >= 0) & ~np.isin(users, seen, assume_unique=True)
        return np.sort(first[new])

    def earlier(
        self,
        lines: NDArray[np.int64],
        begin_ms: int,
        categories: _NewsCategories,
        ids: IdNumbers,
    ) -> Columns:
        """The histories of some lines as clicks that end a second before `begin_ms`."""
        owner, news = _pieces(self._words("history").take(pa.array(lines)))
        behind = np.searchsorted(owner, owner, side="right") - np.arange(len(owner))
        faults = np.zeros(len(owner), np.int8)
        items = _numbers(ids, "item", news, faults)
        return self._columns(lines[owner], items, categories, begin_ms - behind * 1000, faults)

    def shown(
        self, categories: _NewsCategories, ids: IdNumbers
    ) -> tuple[Columns, NDArray[np.bool_]]:
        """The news that were shown, and which were clicked."""
        owner, shown = _pieces(self._words("shown"), keep_empty=True)
        faults = self._faults[owner]
        labelled = pc.match_substring_regex(shown, _LABELLED).to_numpy(zero_copy_only=False)
        faults[~labelled & (faults == 0)] = _WRONG_TYPE
        items = _numbers(ids, "item", pc.replace_substring_regex(shown, "-[01]$", ""), faults)
        clicked: NDArray[np.bool_] = pc.ends_with(shown, "-1").to_numpy(zero_copy_only=False)
        return self._columns(owner, items, categories, self._times[owner], faults), clicked

    def _columns(
        self,
        owner: NDArray[np.int64],
        items: NDArray[np.int64],
        categories: _NewsCategories,
        times_ms: NDArray[np.int64],
        faults: NDArray[np.int8],
    ) -> Columns:
        payload = payload_of(self._rows.columns)
        return Columns(
            user_ids=self.users[owner],
            item_ids=items,
            category_ids=categories.of(items),
            behaviors=np.full(len(owner), _CLICK, np.int64),
            times_ms=times_ms,
            faults=faults,
            lines=self._rows.lines[owner],
            payload=lambda row: payload(int(owner[row])),
        )


def _pieces(words: pa.Array, *, keep_empty: bool = False) -> tuple[NDArray[np.int64], pa.Array]:
    """What stands between spaces, and which text each is of; an empty text has one empty piece."""
    lists = pc.split_pattern(words, " ")
    owner, pieces = pc.list_parent_indices(lists), pc.list_flatten(lists)
    if not keep_empty:
        some = pc.not_equal(pieces, "")
        owner, pieces = owner.filter(some), pieces.filter(some)
    return owner.to_numpy().astype(np.int64), pieces


def _numbers(
    ids: IdNumbers, kind: Kind, words: pa.Array, faults: NDArray[np.int8]
) -> NDArray[np.int64]:
    """The number of each text without a fault, so that no other gets into the table of ids."""
    values = np.full(len(words), -1)
    good = np.flatnonzero(faults == 0)
    values[good] = ids.numbers(kind, words.take(pa.array(good)))
    return values


def _from(clicks: pa.Table, source: str) -> pa.Table:
    return clicks.append_column("source", pa.repeat(pa.scalar(source), clicks.num_rows))
