"""Amazon reviews and product data, JSON lines, gzip or not (the sets of 2014 and 2018).

A review is a behaviour, and the behaviour is `buy`: a user who reviews a book has had it in
hand, while a click leaves no review. Users, items and categories are strings and get numbers
(`uic.pipelines.log.text_ids`). The category is the last name of the last path in the
product data, as in the public preparation that DIEN and MIMN share.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.pipelines.days import CalendarDays
from uic.pipelines.importers.checked import Columns, accept
from uic.pipelines.importers.plausible import TimeUnit
from uic.pipelines.importers.source import Batch, IdNumbers, Rejects
from uic.pipelines.importers.text import line_blocks
from uic.pipelines.log.events import Reason
from uic.pipelines.log.schemas import BEHAVIORS

UNKNOWN_CATEGORY: Final = "unknown"
_BUY: Final = BEHAVIORS.index("buy")
_MAX_SECONDS: Final = 253_402_300_799
_DAY_SECONDS: Final = 86_400


class _Review(msgspec.Struct, gc=False):
    reviewer: str = msgspec.field(name="reviewerID")
    item: str = msgspec.field(name="asin")
    seconds: int = msgspec.field(name="unixReviewTime")


class Amazon:
    """A file of reviews and a file of products.

    Args:
        reviews: JSON lines with `reviewerID`, `asin`, `unixReviewTime`.
        meta: JSON lines (or Python literals, as the set of 2014 has them) with `asin` and
            `categories` (paths) or `category` (one path).
        time_zone: whose days the log has. A review has a day, not a time: it is that day's
            beginning.
    """

    name = "amazon"
    has_impressions = False
    notes: Sequence[str] = (
        "A review is a buy: users review an item that they have had.",
        "Times are days; reviews of one user and day keep the order of the file.",
        (
            f"The category is the last name of the item's last path, {UNKNOWN_CATEGORY!r} if the "
            "product data does not have the item."
        ),
    )

    def __init__(self, reviews: Path, meta: Path, time_zone: str = "UTC") -> None:
        self._reviews, self._meta = reviews, meta
        self._days = CalendarDays(time_zone)
        self.total = sum(path.stat().st_size for path in (reviews, meta) if path.is_file())

    def sources(self) -> Sequence[Path]:
        """The input files."""
        return [self._reviews, self._meta]

    def batches(self, rejects: Rejects, ids: IdNumbers) -> Iterator[Batch]:
        """Products first, then reviews in file order."""
        rejects.times.unit = TimeUnit.SECONDS
        self._refuse_2023()
        item_ids, category_ids, size = self._products(rejects, ids)
        unknown = ids.numbers("category", pa.array([UNKNOWN_CATEGORY]))[0]
        decode = msgspec.json.Decoder(_Review).decode
        for block in line_blocks(self._reviews):
            reviews: list[_Review] = []
            lines: list[int] = []
            raws: list[bytes] = []
            for line, raw in enumerate(block.data.splitlines(), block.first):
                try:
                    reviews.append(decode(raw))
                except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                    rejects.add(self._reviews, line, _reason(error), _text(raw))
                    continue
                if not (reviews[-1].reviewer and reviews[-1].item):
                    reviews.pop()
                    rejects.add(self._reviews, line, Reason.MISSING_FIELD, _text(raw))
                    continue
                lines.append(line)
                raws.append(raw)
            items = ids.numbers("item", pa.array([review.item for review in reviews], pa.string()))
            at = np.searchsorted(item_ids, items).clip(max=max(len(item_ids) - 1, 0))
            known = item_ids[at] == items if len(item_ids) else np.zeros(len(items), bool)
            categories = np.full(len(items), unknown)
            categories[known] = category_ids[at[known]]
            seconds = np.array(
                [min(max(review.seconds, -1), _MAX_SECONDS + 1) for review in reviews], np.int64
            )
            users = pa.array([review.reviewer for review in reviews], pa.string())
            columns = Columns(
                user_ids=ids.numbers("user", users),
                item_ids=items,
                category_ids=categories,
                behaviors=np.full(len(items), _BUY, np.int64),
                times_ms=self._times(seconds),
                faults=np.zeros(len(items), np.int8),
                lines=np.array(lines, np.int64),
                payload=lambda row, raws=raws: _text(raws[row]),  # type: ignore[misc] # mypy sees no default in a lambda
            )
            yield Batch(size + block.done, behaviors=accept(self._reviews, columns, rejects))

    def _times(self, seconds: NDArray[np.int64]) -> NDArray[np.int64]:
        """A whole day is the log's day of that date."""
        days, rest = np.divmod(seconds, _DAY_SECONDS)
        whole = (rest == 0) & (seconds >= 0) & (seconds <= _MAX_SECONDS)
        times = seconds * 1000
        times[whole] = self._days.starts_ms(days[whole])
        return times

    def _refuse_2023(self) -> None:
        head = next(line_blocks(self._reviews), None)
        raw = head.data.partition(b"\n")[0] if head else b""
        if b'"unixReviewTime"' not in raw and b'"timestamp"' in raw and b'"user_id"' in raw:
            msg = (
                f"{self._reviews}: line 1: has user_id and timestamp, as the set of 2023; "
                "expected reviewerID, asin and unixReviewTime, as those of 2014 and 2018. Save "
                "it as Parquet, and import it with `uic import table --user-id user_id "
                "--item-id parent_asin --event-time timestamp`"
            )
            raise BadInputError(msg)

    def _products(
        self, rejects: Rejects, ids: IdNumbers
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Item ids, ascending, and their categories; 16 bytes a product. And the file's size."""
        items, categories = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        size = 0
        for block in line_blocks(self._meta):
            names: list[str] = []
            paths: list[str] = []
            for line, raw in enumerate(block.data.splitlines(), block.first):
                product = _product(raw)
                if product is None:
                    rejects.add(self._meta, line, Reason.MALFORMED, _text(raw))
                    continue
                names.append(product[0])
                paths.append(product[1])
            items.append(ids.numbers("item", pa.array(names, pa.string())))
            categories.append(ids.numbers("category", pa.array(paths, pa.string())))
            size = block.done
        item_ids = np.concatenate(items)
        if not len(item_ids):
            msg = f"{self._meta}: no line has an asin and a category; is it the product data?"
            raise BadInputError(msg)
        unique, first = np.unique(item_ids, return_index=True)
        return unique, np.concatenate(categories)[first], size


def _reason(error: Exception) -> Reason:
    if not isinstance(error, msgspec.ValidationError):
        return Reason.MALFORMED
    missing = "missing required field" in str(error)
    return Reason.MISSING_FIELD if missing else Reason.WRONG_TYPE


def _product(raw: bytes) -> tuple[str, str] | None:
    """Item and category of a line; None if it is neither JSON nor a Python literal of a product."""
    try:
        document: Any = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        try:
            document = ast.literal_eval(raw.decode())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    if not isinstance(document, dict) or not isinstance(document.get("asin"), str):
        return None
    if not document["asin"]:
        return None
    path = document.get("categories", document.get("category"))
    if isinstance(path, list) and path and isinstance(path[-1], list):
        path = path[-1]
    name = path[-1] if isinstance(path, list) and path else UNKNOWN_CATEGORY
    product = document["asin"], name if isinstance(name, str) else UNKNOWN_CATEGORY
    try:
        # A literal may hold half of a surrogate pair, which is no text to Arrow.
        "".join(product).encode()
    except UnicodeEncodeError:
        return None
    return product


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
