"""The features that answers were given with, beside the dated tables that they come from.

A row of features is judged as of the moment at which it was served:

| verdict | the answer had |
|---|---|
| matched | the row that held |
| late | an earlier row: the newer one was loaded, or followed by the service, after the answer |
| pushed | a user's row from a time at which the table has none |
| missing | the default, and its reasons said so |
| differing | none of these |

A user's row carries the time from which it holds, which tells a late row from a wrong one.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.features.dated import ALWAYS, DatedTable
from uic.models.features.definition import FeatureSet, FeatureSource, NamedFeature, Owner
from uic.models.features.raw import RawValues
from uic.pipelines.audit.report import ServedRows
from uic.pipelines.audit.served_features import raw_of_answer

# Of an answer without a row of its user, or of a service that did not write it down.
NO_TIME: Final = ALWAYS
_SAID: Final = {"feature_missing", "feature_invalid"}
_COLUMNS: Final = ["user_id", "item_ids", "features", "served_at", "user_valid_from", "reasons"]
_EXAMPLES: Final = 5


def audit_features(rows: pa.Table, site: FeatureSet) -> ServedRows:
    """Hold the features of all answers against the tables of users and items.

    Args:
        rows: the service's log: user_id, item_ids, features, served_at, user_valid_from, reasons.
        site: the features of the workspace, with their sources.

    Raises:
        FeatureTableError: a table is not what it has to be.
    """
    tally = ServedRows()
    rows = rows.filter(pc.is_valid(rows.column("features"))).select(_COLUMNS)
    answers = [_Answer.of(row) for row in rows.to_pylist()]
    for owner, source in ((Owner.USER, site.sources.user), (Owner.ITEM, site.sources.item)):
        if source is None or not site.of(owner):
            continue
        judge = _Judge.of(site, owner, source)
        logged = list(judge.logged(answers))
        if logged:
            judge.count(_joined(logged), tally)
    return tally


@dataclass(frozen=True)
class _Answer:
    user_id: int
    item_ids: list[int]
    values: dict[str, list[Any]]
    served_ms: int
    user_from_ms: int
    said: bool

    @classmethod
    def of(cls, row: dict[str, Any]) -> "_Answer":
        since = row["user_valid_from"]
        return cls(
            row["user_id"],
            row["item_ids"],
            json.loads(row["features"]),
            row["served_at"],
            NO_TIME if since is None else since,
            bool(_SAID.intersection(row["reasons"] or ())),
        )


@dataclass(frozen=True)
class _Logged:
    """Rows of features: of each its id, when it was served, from when it holds, and values.

    Attributes:
        said: (n,) bool: the answer says that it had defaults.
        values: by key, (n,) or (n, width), and (n,) bool: whether the answer has the feature.
    """

    ids: NDArray[np.int64]
    served_ms: NDArray[np.int64]
    from_ms: NDArray[np.int64]
    said: NDArray[np.bool_]
    values: dict[str, tuple[RawValues, NDArray[np.bool_]]]


@dataclass(frozen=True)
class _Judge:
    owner: Owner
    table: DatedTable
    written_ms: int

    @classmethod
    def of(cls, site: FeatureSet, owner: Owner, source: FeatureSource) -> "_Judge":
        path = site.folder / source.file
        table = DatedTable.read(path, source, site.of(owner))
        return cls(owner, table, path.stat().st_mtime_ns // 1_000_000)

    def logged(self, answers: list[_Answer]) -> Iterator[_Logged]:
        """The rows of each answer that has any of the features."""
        for answer in answers:
            ids = [answer.user_id] if self.owner is Owner.USER else answer.item_ids
            values = {one.key: self._values(one, answer, len(ids)) for one in self.table.features}
            if not any(given.any() for _, given in values.values()):
                continue
            yield _Logged(
                np.array(ids, np.int64),
                np.full(len(ids), answer.served_ms),
                np.full(len(ids), answer.user_from_ms),
                np.full(len(ids), answer.said),
                values,
            )

    def _values(
        self, named: NamedFeature, answer: _Answer, size: int
    ) -> tuple[RawValues, NDArray[np.bool_]]:
        default = self.table.take(named, np.full(size, -1))
        given = answer.values.get(named.key)
        if given is None:
            return default, np.zeros(size, np.bool_)
        try:
            raw = raw_of_answer(named.feature, given, size)
        except (ValueError, TypeError, OverflowError):  # its definition was another then
            return default, np.zeros(size, np.bool_)
        same = raw.shape == default.shape
        return (raw if same else default), np.full(size, same)

    def count(self, logged: _Logged, tally: ServedRows) -> None:
        """Give each row its verdict."""
        table, ids = self.table, logged.ids
        held = table.as_of(ids, logged.served_ms + 1)
        matched = self._equal(held, logged)
        if self.owner is Owner.USER:
            late, pushed = self._by_their_time(held, logged)
        else:
            late, pushed = self._any_earlier(held, logged), np.zeros(ids.size, np.bool_)
        missing = logged.said & self._equal(np.full(ids.size, -1), logged)
        tally.rows += ids.size
        tally.matched += int(matched.sum())
        tally.missing += int((missing & ~matched).sum())
        left = ~(matched | missing)
        tally.late += int((late & left).sum())
        tally.pushed += int((pushed & left).sum())  # never late as well
        left &= ~(late | pushed)
        tally.differing += int(left.sum())
        for row in np.flatnonzero(left)[: _EXAMPLES - len(tally.examples)].tolist():
            tally.examples.append(self._in_words(row, held, logged))

    def _equal(
        self, rows: NDArray[np.int64], logged: _Logged, *, of: NamedFeature | None = None
    ) -> NDArray[np.bool_]:
        """(n,): whether every feature that an answer has is as in these rows of the table."""
        equal = np.ones(rows.size, np.bool_)
        for named in self.table.features if of is None else (of,):
            values, given = logged.values[named.key]
            expected = self.table.take(named, rows)
            same = (values == expected) | ((values != values) & (expected != expected))  # noqa: PLR0124 - NaN
            equal &= ~given | same.reshape(rows.size, -1).all(axis=1)
        return equal

    def _by_their_time(
        self, held: NDArray[np.int64], logged: _Logged
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Users' rows that are late, and those that were pushed, by when they began to hold."""
        timed = logged.from_ms != NO_TIME
        dated = (self.table.valid_from_ms != ALWAYS).any()
        if not dated:  # what such a table said earlier, nothing tells
            return timed & (logged.from_ms < self.written_ms), timed & (
                logged.from_ms > self.written_ms
            )
        rows = self.table.as_of(logged.ids, np.where(timed, logged.from_ms + 1, 0))
        from_table = timed & (rows >= 0) & (self.table.valid_from_ms[rows] == logged.from_ms)
        late = from_table & (rows < held) & self._equal(rows, logged)
        return late, timed & ~from_table & (logged.from_ms <= logged.served_ms)

    def _any_earlier(self, held: NDArray[np.int64], logged: _Logged) -> NDArray[np.bool_]:
        """(n,): items' rows that are as an earlier row of the item."""
        late = np.zeros(held.size, np.bool_)
        if (self.table.valid_from_ms == ALWAYS).all():
            return late | (logged.served_ms < self.written_ms)
        rows = held
        while (rows >= 0).any():
            before = np.maximum(rows - 1, 0)
            there = (rows > 0) & (self.table.ids[before] == logged.ids)
            rows = np.where(there, before, -1)
            late |= (rows >= 0) & self._equal(rows, logged)
        return late

    def _in_words(self, row: int, held: NDArray[np.int64], logged: _Logged) -> str:
        wrong = next(
            named for named in self.table.features if not self._equal(held, logged, of=named)[row]
        )
        found = logged.values[wrong.key][0][row].tolist()
        expected = self.table.take(wrong, held[row : row + 1])[0].tolist()
        moment = np.datetime64(int(logged.served_ms[row]), "ms")
        return (
            f"{self.owner.value} {logged.ids[row]} at {moment}: {wrong.key} was {found}, the table "
            f"says {expected}"
        )


def _joined(logged: list[_Logged]) -> _Logged:
    def of(name: str) -> Any:
        return np.concatenate([getattr(one, name) for one in logged])

    values = {
        key: (
            np.concatenate([one.values[key][0] for one in logged]),
            np.concatenate([one.values[key][1] for one in logged]),
        )
        for key in logged[0].values
    }
    return _Logged(of("ids"), of("served_ms"), of("from_ms"), of("said"), values)
