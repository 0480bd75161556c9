"""Alibaba brand behaviours of 2013: user, brand, type, date, in the order of `row`.

The file has days, not times. The k-th row of a day happens k milliseconds after the day begins
(in the workspace's time zone), so the order of the file is kept and `dt` is the file's date; the
spacing means nothing. A brand stands for both item and category.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.pipelines.days import CalendarDays
from uic.pipelines.importers.checked import Columns, accept, payload_of, whole_numbers
from uic.pipelines.importers.parquet import TypeCheck, batches, open_parquet
from uic.pipelines.importers.source import (
    FAULTS,
    TIME_OUT_OF_RANGE,
    Batch,
    IdNumbers,
    Rejects,
)
from uic.pipelines.log.columns import behavior_codes

# The set's own codes: 0 click, 1 buy, 2 favourite, 3 cart.
_TYPES: Final = ("click", "buy", "favourite", "cart")
_LAST_DAY: Final = 2_932_896  # 9999-12-31; a year has four digits here
_COLUMNS: Final[dict[str, TypeCheck]] = {
    "user_id": pa.types.is_integer,
    "brand_id": pa.types.is_integer,
    "type": pa.types.is_integer,
    "date": pa.types.is_date,
    "row": pa.types.is_integer,
}


class AliBrand:
    """One Parquet file, sorted by `row`; a date begins at midnight of `time_zone`."""

    name = "ali-brand"
    has_impressions = False
    notes: Sequence[str] = (
        "The source has days only: the k-th row of a day is k milliseconds after its beginning.",
        "That keeps the order of the rows; the spacing is not real.",
        "A brand is both item and category.",
        "The source has no features beside the behaviours' types.",
    )

    def __init__(self, path: Path, time_zone: str) -> None:
        self._path = path
        self._days = CalendarDays(time_zone)
        self.total = open_parquet(path, _COLUMNS).metadata.num_rows
        self._codes = behavior_codes(pa.array(_TYPES)).to_numpy().astype(np.int64)

    def sources(self) -> Sequence[Path]:
        """The input file."""
        return [self._path]

    def batches(self, rejects: Rejects, ids: IdNumbers) -> Iterator[Batch]:  # noqa: ARG002
        """Behaviours in file order."""
        seen: dict[int, int] = {}
        done = 0
        last = None
        for batch in batches(self._path, open_parquet(self._path, _COLUMNS), list(_COLUMNS)):
            faults = np.zeros(batch.num_rows, np.int8)
            days = whole_numbers(batch["date"].cast(pa.date32()).cast(pa.int32()), faults)
            faults[(days < 0) | (days > _LAST_DAY)] = FAULTS.index(TIME_OUT_OF_RANGE)
            days = np.clip(days, 0, _LAST_DAY)
            types = whole_numbers(batch["type"], faults)
            known = (types >= 0) & (types < len(_TYPES))
            brands = whole_numbers(batch["brand_id"], faults)
            order = whole_numbers(batch["row"], faults)
            last = self._refuse_disorder(order, last, done)
            rows = Columns(
                user_ids=whole_numbers(batch["user_id"], faults),
                item_ids=brands,
                category_ids=brands,
                behaviors=np.where(known, self._codes[types.clip(0, 3)], -1),
                times_ms=self._times(days, seen),
                faults=faults,
                lines=np.arange(done + 1, done + batch.num_rows + 1),
                payload=payload_of(batch),
            )
            done += batch.num_rows
            yield Batch(done, behaviors=accept(self._path, rows, rejects))

    def _refuse_disorder(self, order: NDArray[np.int64], last: int | None, done: int) -> int:
        before = np.r_[order[0] - 1 if last is None else last, order[:-1]]
        falls = np.flatnonzero(order <= before)
        if falls.size:
            at = int(falls[0])
            msg = (
                f"{self._path}: row {done + at + 1}: column row is {order[at]} after "
                f"{before[at]}, expected rising numbers; sort the file by row"
            )
            raise BadInputError(msg)
        return int(order[-1])

    def _times(self, days: NDArray[np.int64], seen: dict[int, int]) -> NDArray[np.int64]:
        """Beginning of the day and rank in it; `seen` counts each day's rows so far."""
        order = np.argsort(days, kind="stable")
        numbers, firsts, counts = np.unique(days[order], return_index=True, return_counts=True)
        starts = np.array(
            [self._days.start_ms(day) + seen.get(day, 0) for day in numbers.tolist()], np.int64
        )
        times = np.empty(len(days), np.int64)
        times[order] = np.repeat(starts - firsts, counts) + np.arange(len(days))
        for day, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            seen[day] = seen.get(day, 0) + count
        return times
