"""Gives numbers to the string ids of an import, and keeps the pairs that occurred.

Which number a text has is in `uic.pipelines.log.text_ids`; two texts with one number (expected once
in 10^6 imports of 4 million ids) are refused here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.records.sequence_ring import LARGEST_CATEGORY
from uic.pipelines.importers.source import BATCH_ROWS, readable
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.files import ROW_GROUP_ROWS
from uic.pipelines.log.spool import KeyedSpool
from uic.pipelines.log.text_ids import (
    KINDS,
    PAIRS,
    Kind,
    category_number_of,
    check_pairs,
    number_of,
)
from uic.pipelines.log.writer import LogWriter

CATEGORY_NUMBERS: Final = LARGEST_CATEGORY + 1
# Pairs go to disk by the upper bits of the number, and each bucket is made distinct in memory.
_BUCKET_BITS: Final = 6


class StringIds:
    """Gives numbers and remembers the pairs, on disk until `publish`.

    Args:
        directory: for the pairs; made when the first comes.
        log: whose text categories keep their numbers.
    """

    def __init__(self, directory: Path, log: EventLog) -> None:
        self._directory, self._log = directory, log
        self._spools: dict[Kind, KeyedSpool] = {}
        self._categories: dict[str, int] | None = None
        self._numbers: set[int] = set()

    def numbers(self, kind: Kind, texts: pa.Array) -> NDArray[np.int64]:
        """The number of each text; `kind` is user, item or category."""
        encoded = pc.dictionary_encode(texts)
        distinct = encoded.dictionary
        number = self._category if kind == "category" else number_of
        ids = np.array([number(text) for text in distinct.to_pylist()], np.int64)
        self._remember(kind, pa.table([ids, distinct], schema=PAIRS))
        numbers_of_rows: NDArray[np.int64] = ids[encoded.indices.to_numpy()]
        return numbers_of_rows

    def _category(self, text: str) -> int:
        if self._categories is None:
            older = self._log.ids_file("category")
            self._categories = {} if older is None else _pairs(older)
            self._numbers = set(self._categories.values())
        known = self._categories.get(text)
        if known is None:
            known = category_number_of(text)
            while known in self._numbers:
                known = (known + 1) % CATEGORY_NUMBERS
            self._categories[text] = known
            self._numbers.add(known)
        return known

    def _remember(self, kind: Kind, pairs: pa.Table) -> None:
        spool = self._spools.get(kind)
        if spool is None:
            spool = self._spools[kind] = KeyedSpool(self._directory / f"ids-{kind}")
        buckets = pairs["id"].to_numpy() >> (63 - _BUCKET_BITS)
        spool.add(pairs, buckets.astype(np.int32))

    def refuse_another_kind(self, source: Path) -> None:
        """Refuse texts in a log of numbers, and numbers in a log of texts: one user would be two.

        What came by a topic alone says nothing: a producer sends the numbers of texts, too.

        Raises:
            BadInputError: ids of users or items are of the other kind.
        """
        imported = any(epoch.kind == "import" for epoch in self._log.epochs())
        for kind in KINDS[:2]:
            texts, here = self._log.ids_file(kind) is not None, kind in self._spools
            if texts == here or not (texts or imported):
                continue
            was, now = ("texts", "numbers") if texts else ("numbers", "texts")
            way = f"; say --string-id {kind}" if texts else ", or import its numbers"
            msg = (
                f"{source}: {kind} ids are {now} here and {was} in {self._log.root}: the same "
                f"{kind} would be two{way}"
            )
            raise BadInputError(msg)

    def publish(self, writer: LogWriter) -> None:
        """Write what occurred, with what earlier imports had, as files of the writer's part.

        Raises:
            BadInputError: two texts have one number, or the earlier table cannot be read, or has
                other numbers than its texts give.
        """
        for kind in sorted(self._spools):
            older = writer.log.ids_file(kind)
            if older is not None:
                with readable(older):
                    for batch in pq.ParquetFile(older).iter_batches(BATCH_ROWS):
                        ids, texts = batch["id"].to_pylist(), batch["text"].to_pylist()
                        check_pairs(kind, older, ids, texts)
                        self._remember(kind, pa.Table.from_batches([batch]).cast(PAIRS))
            path = writer.log.root / "ids" / f"{kind}-{writer.tag}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = 0
            with pq.ParquetWriter(path, PAIRS, compression="zstd") as file:
                for pairs in self._distinct(kind):
                    file.write_table(pairs, row_group_size=ROW_GROUP_ROWS)
                    rows += pairs.num_rows
            writer.add_file(f"{kind}_ids", path, rows)

    def _distinct(self, kind: Kind) -> Iterator[pa.Table]:
        spool = self._spools[kind]
        for bucket in spool.keys():  # noqa: SIM118 - not a dict
            pieces = pa.Table.from_batches(list(spool.pieces(bucket)))
            pairs = pieces.group_by(["id", "text"]).aggregate([]).select(["id", "text"])
            pairs = pairs.sort_by("id")
            ids = pairs["id"].to_numpy()
            same = np.flatnonzero(ids[1:] == ids[:-1])
            if same.size:
                at = int(same[0])
                left, right = (pairs["text"][at + step].as_py() for step in (0, 1))
                msg = f"{kind} ids {left!r} and {right!r} have one number; rename one of them"
                raise BadInputError(msg)
            yield pairs.cast(PAIRS)


def _pairs(path: Path) -> dict[str, int]:
    with readable(path):
        table = pq.read_table(path, schema=PAIRS)
    return dict(zip(table["text"].to_pylist(), table["id"].to_pylist(), strict=True))
