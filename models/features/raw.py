"""Raw values of features as arrays: what samples hold, and what a request's values become.

A category is an int64: a whole number as it is, a text by a hash of its bytes, a truth as 0 or 1. A
missing one is `MISSING`. A number is a float32, a missing one NaN; infinite counts as missing. The
same function reads a column of a table and the values of a request, so both mean the same.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.definition import Feature, Kind

MISSING: Final = -(2**63)
_MOST_FLOAT: Final = float(np.finfo(np.float32).max)

# Numbers of events are float64, as on the wire; all others are float32.
RawValues = NDArray[np.int64] | NDArray[np.float32] | NDArray[np.float64]


class FeatureValueError(BadInputError):
    """A column or a value is not of its feature's type."""


def raw_type(feature: Feature) -> pa.DataType:
    """The Arrow type of a feature's raw values."""
    return {
        Kind.CATEGORICAL: pa.int64(),
        Kind.CATEGORIES: pa.list_(pa.int64(), feature.most),
        Kind.NUMBER: pa.float32(),
        Kind.EMBEDDING: pa.list_(pa.float32(), feature.width),
    }[feature.type]


def missing_values(feature: Feature, rows: int) -> RawValues:
    """(rows,) or (rows, width): what stands for no value, the default of the feature included."""
    if feature.type is Kind.CATEGORICAL:
        given = MISSING if feature.default is None else category_of(feature.default)
        return np.full(rows, given, np.int64)
    if feature.type is Kind.CATEGORIES:
        return np.full((rows, feature.most), MISSING, np.int64)
    if feature.type is Kind.NUMBER:
        given_number = np.nan if feature.default is None else float(feature.default)
        return np.full(rows, given_number, np.float32)
    return np.full((rows, feature.width), np.nan, np.float32)


def is_missing(feature: Feature, values: RawValues) -> NDArray[np.bool_]:
    """(rows,) bool: which raw values stand for none."""
    if feature.type is Kind.CATEGORICAL:
        return np.asarray(values == MISSING)
    if feature.type is Kind.CATEGORIES:
        return np.asarray((values == MISSING).all(axis=1))
    if feature.type is Kind.NUMBER:
        return np.isnan(values)
    return np.asarray(np.isnan(values).any(axis=1))


def category_of(value: float | str) -> int:
    """The number of a category: a text, a whole number or a truth."""
    return _number_of_text(value) if isinstance(value, str) else int(value)


@lru_cache(maxsize=1 << 16)
def _number_of_text(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "big", signed=True)
    return number + (number == MISSING)


def raw_column(feature: Feature, column: pa.Array | pa.ChunkedArray, where: str) -> RawValues:
    """The values of a table's column; nulls take the feature's default.

    Args:
        feature: of the column.
        column: (rows,).
        where: names the column in messages.

    Returns:
        (rows,), or (rows, width) of lists.

    Raises:
        FeatureValueError: the column is of another type.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of no chunks, or of too many bytes
            column = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values = missing_values(feature, len(column))
    if pa.types.is_null(column.type):
        return values
    if feature.type in (Kind.CATEGORIES, Kind.EMBEDDING):
        return _lists(feature, column, where, values)
    there = np.flatnonzero(np.asarray(pc.is_valid(column)))
    given = column.take(pa.array(there))
    if feature.type is Kind.NUMBER:
        values[there] = _numbers(given, where, values[there].astype(np.float32))
    else:
        values[there] = _categories(given, where)
    return values


def raw_values(feature: Feature, values: Sequence[Any], where: str) -> RawValues:
    """As `raw_column`, of Python's values, such as those of a request.

    Raises:
        FeatureValueError: a value is of another type, or values are of several.
    """
    quick = _plain_values(feature, values)
    if quick is not None:
        return quick
    try:
        column = pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeError) as error:
        msg = f"{where}: {' '.join(str(error).split())}"
        raise FeatureValueError(msg) from error
    return raw_column(feature, column, where)


def _plain_values(feature: Feature, values: Sequence[Any]) -> RawValues | None:
    """`raw_values` without Arrow, which costs a request 35 us a feature; None for anything odd.

    Of values that are all of one plain type, and none of them missing.
    """
    if feature.type not in (Kind.CATEGORICAL, Kind.NUMBER):
        return None
    kinds = set(map(type, values))
    if kinds <= {int} or kinds <= {bool}:
        whole = _whole_numbers(values)
        if whole is None or feature.type is Kind.CATEGORICAL:
            return whole
        return whole.astype(np.float64).astype(np.float32)
    if kinds == {str} and feature.type is Kind.CATEGORICAL:
        known = {text: category_of(text) for text in set(values)}
        return np.fromiter(map(known.__getitem__, values), np.int64, len(values))
    if kinds == {float} and feature.type is Kind.NUMBER:
        numbers = np.array(values, np.float64)
        # NaN, infinite ones and what float32 makes infinite take the default, below.
        return numbers.astype(np.float32) if (np.abs(numbers) <= _MOST_FLOAT).all() else None
    return None


def _whole_numbers(values: Sequence[int]) -> NDArray[np.int64] | None:
    """(n,); None where one needs more than 64 bits."""
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return None


def _numbers(column: pa.Array, where: str, otherwise: NDArray[np.float32]) -> NDArray[np.float32]:
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        column = column.cast(pa.timestamp("ms")).cast(pa.int64())
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    ):
        raise _wrong_type(where, kind, "a number")
    # NaN and infinite numbers, and what float32 makes infinite, are no values.
    numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        good = np.abs(numbers) <= _MOST_FLOAT
    numbers = np.where(good, numbers, 0.0).astype(np.float32)
    return np.where(good, numbers, otherwise).astype(np.float32)


def _categories(column: pa.Array, where: str) -> NDArray[np.int64]:
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        if pa.types.is_uint64(kind):
            return np.asarray(column.to_numpy().astype(np.int64))  # wraps around, one to one
        return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
    if pa.types.is_floating(kind):  # of a column of whole numbers with gaps, as pandas has it
        numbers = column.to_numpy(zero_copy_only=False)
        with np.errstate(invalid="ignore"):
            whole = numbers.astype(np.int64)
        if (whole == numbers).all():
            return np.asarray(whole)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise _wrong_type(where, kind, "texts, whole numbers or truths")
    coded = column.dictionary_encode()
    numbers = np.fromiter(
        (category_of(text) for text in coded.dictionary.to_pylist()),
        np.int64,
        len(coded.dictionary),
    )
    return np.asarray(numbers[coded.indices.to_numpy()])


def _lists(feature: Feature, column: pa.Array, where: str, values: RawValues) -> RawValues:
    kind = column.type
    if not (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        raise _wrong_type(where, kind, f"lists ({feature.type.value})")
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    owners = np.repeat(np.arange(len(column)), lengths)
    starts = np.cumsum(lengths) - lengths
    places = np.arange(len(owners)) - np.repeat(starts, lengths)
    flat = pc.list_flatten(column)
    if feature.type is Kind.EMBEDDING:
        wrong = np.flatnonzero((lengths != feature.width) & np.asarray(pc.is_valid(column)))
        if wrong.size:
            msg = (
                f"{where}: row {wrong[0] + 1} has {lengths[wrong[0]]} numbers, "
                f"expected {feature.width} (width)"
            )
            raise FeatureValueError(msg)
        nothing = np.full(len(flat), np.nan, np.float32)
        there = np.flatnonzero(np.asarray(pc.is_valid(flat)))
        nothing[there] = _numbers(flat.take(pa.array(there)), where, nothing[there])
        values[owners, places] = nothing
        return values
    kept = (places < feature.most) & np.asarray(pc.is_valid(flat))
    rows = np.flatnonzero(kept)
    if rows.size:
        values[owners[rows], places[rows]] = _categories(flat.take(pa.array(rows)), where)
    return values


def _wrong_type(where: str, kind: pa.DataType, expected: str) -> FeatureValueError:
    return FeatureValueError(f"{where} is {kind}, expected {expected}; see features.yaml")
