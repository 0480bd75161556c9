"""Columns of ids, texts and truths of any type that a file may give them, as what the log takes.

What a column is as a whole (its type, texts where numbers are expected) is refused with the name of
the column and the way out; what is wrong in one row is marked there.
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.pipelines.importers.checked import whole_numbers
from uic.pipelines.importers.source import FAULTS, NOT_UTF8
from uic.pipelines.importers.text import integers, texts

_WRONG_TYPE: Final = FAULTS.index("wrong_type")
_MISSING: Final = FAULTS.index("missing_field")
_NOT_UTF8: Final = FAULTS.index(NOT_UTF8)
# Beyond it a float does not tell one id from the next.
_LARGEST_EXACT: Final = 2**53


def written_numbers(
    where: str, kind: str, column: pa.Array, faults: NDArray[np.int8], *, first: bool
) -> NDArray[np.int64]:
    """Ids that a CSV file writes as whole numbers, or as `12.0`.

    Args:
        where: file and column, for messages.
        kind: of id: user, item or category.
        column: (rows,) binary.
        faults: (rows,); rows that hold no such number are marked.
        first: no row was good before; then a column without any number is refused.

    Raises:
        BadInputError: ids have leading zeros, or no row holds a number.
    """
    values, bad = integers(column)
    padded = pc.match_substring_regex(column, "^0[0-9]")
    if pc.any(padded).as_py():
        text = column.filter(padded)[0].as_py().decode(errors="backslashreplace")
        msg = (
            f"{where}: found {text!r}; ids with leading zeros are texts ({text!r} is not "
            f"{text.lstrip('0') or '0'!r}): say --string-id {kind}"
        )
        raise BadInputError(msg)
    if bad.any():
        empty = pc.equal(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
        faults[bad] = np.where(empty[bad], _MISSING, _WRONG_TYPE)
        texts_only = bad[~empty]
        if first and len(texts_only) and texts_only.all():
            text = column.filter(pa.array(~empty))[0].as_py().decode(errors="backslashreplace")
            msg = (
                f"{where} holds no whole numbers below 2^63, found {text[:80]!r}: "
                f"say --string-id {kind}"
            )
            raise BadInputError(msg)
    return values


def typed_numbers(where: str, column: pa.Array, faults: NDArray[np.int8]) -> NDArray[np.int64]:
    """Ids of a typed column of integers, or of floats or decimals that are all whole.

    Raises:
        BadInputError: a float or decimal is not whole, or too large to be exact.
    """
    kind = column.type
    if pa.types.is_integer(kind):
        return whole_numbers(column, faults)
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
    known = column.drop_null()
    try:
        exact = known.cast(pa.int64())
        large = pa.types.is_floating(kind) and pc.any(
            pc.greater(pc.abs(known.cast(pa.float64())), _LARGEST_EXACT)
        )
        if large and large.as_py():
            msg = (
                f"{where} is {kind} and holds ids above 2^53, which a float does not tell apart; "
                "save them as integers (pandas: astype('Int64') before the null comes in) or texts"
            )
            raise BadInputError(msg)
    except pa.ArrowInvalid as error:
        cause = "float ids come from a pandas column with a null: astype('Int64')"
        msg = (
            f"{where} is {kind}, and not every value is a whole number below 2^63; expected "
            f"integers or strings ({cause if pa.types.is_floating(kind) else 'cast them'})"
        )
        raise BadInputError(msg) from error
    values = np.zeros(len(column), np.int64)
    null = column.is_null().to_numpy(zero_copy_only=False)
    values[~null] = exact.to_numpy()
    faults[null] = _MISSING
    return values


def is_number(kind: pa.DataType) -> bool:
    """Whether ids of a type are numbers."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def words_of(where: str, column: pa.Array, faults: NDArray[np.int8]) -> pa.Array:
    """Any column of texts as strings; null and what is not UTF-8 are empty.

    Raises:
        BadInputError: the column holds neither integers nor strings.
    """
    if pa.types.is_binary(column.type):
        words, bad = texts(column)
        faults[bad] = _NOT_UTF8
        return words
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    plain = (pa.types.is_large_string, pa.types.is_string, pa.types.is_integer)
    if any(check(column.type) for check in plain):
        return pc.fill_null(column.cast(pa.string()), "")
    msg = f"{where} is {column.type}, expected integers or strings"
    raise BadInputError(msg)


def truths(where: str, column: pa.Array, faults: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Booleans, numbers (0 is no), or the texts 0, 1, true, false."""
    if pa.types.is_floating(column.type):
        column = pc.not_equal(pc.if_else(pc.is_nan(column), None, column), 0)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_integer(column.type):
        truth: NDArray[np.bool_] = whole_numbers(column, faults) != 0
        return truth
    lower = pc.ascii_lower(words_of(where, column, faults))
    at = pc.index_in(lower, value_set=pa.array(["0", "false", "1", "true"]))
    faults[at.is_null().to_numpy(zero_copy_only=False)] = _WRONG_TYPE
    faults[pc.equal(lower, "").to_numpy(zero_copy_only=False)] = _MISSING
    yes: NDArray[np.bool_] = pc.fill_null(at, 0).to_numpy() >= 2
    return yes
