"""Labels beside the click: columns of an imported table that tell what came of an impression.

They go into the log as `label.NAME`, a truth or null: null is not known, such as a purchase while
it may still happen. So no feature can be one by mistake.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.definition import CLICK, LOGGED_LABEL, NAME_PATTERN
from uic.pipelines.importers.cells import is_number, words_of
from uic.pipelines.importers.source import FAULTS

_WRONG_TYPE: Final = FAULTS.index("wrong_type")
_NO_VALUE: Final = pa.array(["", "null", "nan", "\\n"])
_TRUTHS: Final = pa.array(["false", "true"])
_NUMBER: Final = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?$"


@dataclass(frozen=True)
class LabelColumn:
    """Which column is a label.

    Attributes:
        name: of the label.
        column: of the table: truths or numbers.
        above: a number is true above this; None takes any but 0 for true.
    """

    name: str
    column: str
    above: float | None = None

    @property
    def logged(self) -> str:
        """Its column in the log."""
        return LOGGED_LABEL + self.name


def label_columns(given: Sequence[str]) -> tuple[LabelColumn, ...]:
    """Read `COL`, `NAME=COL` and `NAME=COL>THRESHOLD`.

    Raises:
        BadInputError: no name of a label, one twice, the click, or a threshold that is no number.
    """
    labels: dict[str, LabelColumn] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        rest = rest if equals else text
        column, above, number = rest.partition(">")
        name = name if equals else column
        if not column or not re.fullmatch(NAME_PATTERN, name) or name == CLICK:
            msg = (
                f"--label: found {text!r}, expected [NAME=]COL or [NAME=]COL>NUMBER, a name of "
                "a-z, 0-9 and _ that begins with a letter and is not click"
            )
            raise BadInputError(msg)
        if name in labels:
            msg = f"--label: {name} is there twice; give the other a name of its own"
            raise BadInputError(msg)
        labels[name] = LabelColumn(name, column, _threshold(number, text) if above else None)
    return tuple(labels.values())


def _threshold(number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        msg = f"--label: found {text!r}, expected a number after >"
        raise BadInputError(msg)
    return value


def label_values(
    where: str, label: LabelColumn, column: pa.Array, faults: NDArray[np.int8]
) -> pa.Array:
    """Whether a label is true of each row.

    Args:
        where: file and column, for messages.
        label: which.
        column: (rows,) truths, numbers, or texts of them.
        faults: (rows,); rows that hold something else are marked.

    Returns:
        (rows,) bool, null where there is no value.

    Raises:
        BadInputError: the column is of another type.
    """
    if pa.types.is_boolean(column.type):
        numbers = column.cast(pa.int8()).cast(pa.float64())
    elif is_number(column.type):
        numbers = column.cast(pa.float64())
    else:
        numbers = _written(words_of(where, column, faults), faults)
    numbers = pc.if_else(pc.is_nan(numbers), None, numbers)
    return pc.not_equal(numbers, 0.0) if label.above is None else pc.greater(numbers, label.above)


def _written(words: pa.Array, faults: NDArray[np.int8]) -> pa.Array:
    """Texts of numbers or truths as numbers, null where there is no value."""
    lower = pc.ascii_lower(pc.utf8_trim_whitespace(words))
    truth = pc.index_in(lower, value_set=_TRUTHS)
    number = pc.match_substring_regex(lower, _NUMBER)
    numbers = pc.if_else(number, lower, None).cast(pa.float64())
    empty = pc.is_in(lower, value_set=_NO_VALUE)
    odd = pc.invert(pc.or_(pc.or_(number, empty), pc.is_valid(truth)))
    wrong = odd.to_numpy(zero_copy_only=False) & (faults == 0)
    faults[wrong] = _WRONG_TYPE
    return pc.coalesce(numbers, truth.cast(pa.float64()))
