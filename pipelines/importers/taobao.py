"""Taobao UserBehavior: `user,item,category,pv|buy|cart|fav,seconds`, no header, any order."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uic.pipelines.importers.checked import Columns, accept, payload_of
from uic.pipelines.importers.plausible import TimeUnit, milliseconds
from uic.pipelines.importers.source import FAULTS, Batch, IdNumbers, Rejects
from uic.pipelines.importers.text import csv_rows, integers
from uic.pipelines.log.columns import behavior_codes, one_chunk

_NAMES: Final = ("user_id", "item_id", "category_id", "behavior", "seconds")
_TYPES: Final = pa.array([b"pv", b"cart", b"fav", b"buy"], pa.binary())
_CODES: Final = behavior_codes(pa.array(["click", "cart", "favourite", "buy"]))


class Taobao:
    """One CSV file, gzip or not."""

    name = "taobao"
    has_impressions = False
    notes: Sequence[str] = (
        "Times are whole seconds; events of one second keep the order of the file.",
    )

    def __init__(self, path: Path) -> None:
        self._path = path
        self.total = path.stat().st_size if path.is_file() else 0

    def sources(self) -> Sequence[Path]:
        """The input file."""
        return [self._path]

    def batches(self, rejects: Rejects, ids: IdNumbers) -> Iterator[Batch]:  # noqa: ARG002
        """Behaviours in file order."""
        rejects.times.unit = TimeUnit.SECONDS
        for rows in csv_rows(self._path, _NAMES, _NAMES, rejects, quotes=False):
            faults = np.zeros(len(rows.lines), np.int8)
            values = {}
            for name in ("user_id", "item_id", "category_id", "seconds"):
                values[name], bad = integers(one_chunk(rows.columns, name))
                faults[bad] = FAULTS.index("wrong_type")
            at = pc.index_in(one_chunk(rows.columns, "behavior"), value_set=_TYPES)
            codes = pc.fill_null(_CODES.take(at), -1).to_numpy().astype(np.int64)
            columns = Columns(
                values["user_id"],
                values["item_id"],
                values["category_id"],
                codes,
                milliseconds(values["seconds"], 1),
                faults,
                rows.lines,
                payload_of(rows.columns),
            )
            yield Batch(rows.done, behaviors=accept(self._path, columns, rejects))
