"""Labels beside the click: from the columns `label.NAME` of the impression log into samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uic.models.errors import BadInputError
from uic.models.features.definition import LOGGED_LABEL
from uic.models.samples.schema import label_column


class LabelError(BadInputError):
    """A label is not in the impression log, or is not one."""


@dataclass(frozen=True)
class LabelCounts:
    """What is known of a label in some impressions.

    Attributes:
        impressions: all; count.
        known: those with a value; count.
        true: of them those where it came true; count.
    """

    impressions: int = 0
    known: int = 0
    true: int = 0

    @classmethod
    def of(cls, values: pa.Array) -> Self:
        """Count (impressions,) bool, null where not known."""
        return cls(len(values), len(values) - values.null_count, pc.sum(values).as_py() or 0)

    def __add__(self, other: "LabelCounts") -> "LabelCounts":
        """The counts of both together."""
        return LabelCounts(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    def shares(self) -> dict[str, float]:
        """For a manifest: how many are known, and how many of those are true."""
        return {
            "known": round(self.known / max(self.impressions, 1), 6),
            "true": round(self.true / max(self.known, 1), 6),
        }


def with_labels(table: pa.Table, labels: Sequence[str], path: Path) -> pa.Table:
    """A file's impressions with their labels as samples name them.

    A label that the file does not have is not known of any of its impressions.

    Raises:
        LabelError: a column of a label is not of truths.
    """
    for name in labels:
        logged = LOGGED_LABEL + name
        values = pa.nulls(table.num_rows, pa.bool_())
        if logged in table.column_names:
            values = table.column(logged)
            if not pa.types.is_boolean(values.type):
                msg = f"{path}: column {logged} is {values.type}, expected bool; import again"
                raise LabelError(msg)
        table = table.append_column(label_column(name), values)
    return table


def check_labels(labels: Sequence[str], files: Iterable[Path]) -> None:
    """Find each label in at least one file of an impression log.

    Raises:
        LabelError: a label is in none of them; names those that are.
    """
    if not labels:
        return
    columns = {column for path in files for column in pq.read_schema(path).names}
    there = sorted(
        column.removeprefix(LOGGED_LABEL) for column in columns if column.startswith(LOGGED_LABEL)
    )
    for name in labels:
        if name not in there:
            msg = (
                f"--label {name}: no impression of these days has it; there is: "
                f"{', '.join(there) or 'none'}; `uic import table … --label {name}=COL` brings it"
            )
            raise LabelError(msg)
