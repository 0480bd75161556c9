"""Numbers for string ids: a pure function of the string, and the table to read them back.

The number is 63 bits of blake2b of the UTF-8 text: the same in every import, on every machine, in
every year, with no state to lose. The pairs that occurred are kept in `log/ids/KIND-….parquet`;
two texts with one number (expected once in 10^6 imports of 4 million ids) are refused there.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.pipelines.importers.source import BATCH_ROWS, readable
from uic.pipelines.log.files import ROW_GROUP_ROWS
from uic.pipelines.log.spool import KeyedSpool
from uic.pipelines.log.writer import LogWriter

PAIRS: Final = pa.schema(
    [pa.field("id", pa.int64(), nullable=False), pa.field("text", pa.string(), nullable=False)]
)
# Pairs go to disk by the upper bits of the number, and each bucket is made distinct in memory.
_BUCKET_BITS: Final = 6


def number_of(text: str) -> int:
    """The int64 id of a string id, 0 to 2^63 - 1."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class StringIds:
    """Gives numbers and remembers the pairs, on disk until `publish`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._spools: dict[str, KeyedSpool] = {}

    def numbers(self, kind: str, texts: pa.Array) -> NDArray[np.int64]:
        """The number of each text; `kind` is user, item or category."""
        encoded = pc.dictionary_encode(texts)
        distinct = encoded.dictionary
        ids = np.array([number_of(text) for text in distinct.to_pylist()], np.int64)
        self._remember(kind, pa.table([ids, distinct], schema=PAIRS))
        numbers_of_rows: NDArray[np.int64] = ids[encoded.indices.to_numpy()]
        return numbers_of_rows

    def _remember(self, kind: str, pairs: pa.Table) -> None:
        spool = self._spools.get(kind)
        if spool is None:
            spool = self._spools[kind] = KeyedSpool(self._directory / f"ids-{kind}")
        buckets = pairs["id"].to_numpy() >> (63 - _BUCKET_BITS)
        spool.add(pairs, buckets.astype(np.int32))

    def publish(self, writer: LogWriter) -> None:
        """Write what occurred, with what earlier imports had, as files of the writer's part.

        Raises:
            BadInputError: two texts have one number, or the earlier table cannot be read.
        """
        for kind in sorted(self._spools):
            older = writer.log.ids_file(kind)
            if older is not None:
                with readable(older):
                    for batch in pq.ParquetFile(older).iter_batches(BATCH_ROWS):
                        self._remember(kind, pa.Table.from_batches([batch]).cast(PAIRS))
            path = writer.log.root / "ids" / f"{kind}-{writer.tag}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = 0
            with pq.ParquetWriter(path, PAIRS, compression="zstd") as file:
                for pairs in self._distinct(kind):
                    file.write_table(pairs, row_group_size=ROW_GROUP_ROWS)
                    rows += pairs.num_rows
            writer.add_file(f"{kind}_ids", path, rows)

    def _distinct(self, kind: str) -> Iterator[pa.Table]:
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
