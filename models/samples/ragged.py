"""List columns of samples as ragged arrays, viewed in place and held against each other."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.definition import FeatureSet, Owner
from uic.models.features.fitted import RawFeatures
from uic.models.features.raw import RawValues
from uic.models.samples.groups import NOT_KNOWN
from uic.models.samples.schema import USER_VERSIONS, label_column


def shown_features(
    table: pa.Table, features: FeatureSet, impression_offsets: NDArray[np.int64], path: Path
) -> RawFeatures:
    """Raw values of each impression; of a user, those of the version that held when it was shown.

    Raises:
        BadInputError: lists are not parallel, or name a version that is not there.
    """
    shown: dict[str, RawValues] = {}
    rows: NDArray[np.int64] | None = None
    for named in features:
        offsets, values = _ragged_values(table, named.key)
        if named.owner is not Owner.USER:
            if not np.array_equal(offsets, impression_offsets):
                msg = f"{path}: {named.key} is not parallel to item_ids; make the samples again"
                raise BadInputError(msg)
            shown[named.key] = values
            continue
        if rows is None:
            _, versions = ragged(table, USER_VERSIONS)
            owners = np.repeat(np.arange(offsets.size - 1), np.diff(impression_offsets))
            there = (versions >= 0) & (versions < np.diff(offsets)[owners])
            if versions.size != owners.size or not there.all():
                msg = f"{path}: {USER_VERSIONS} names versions that are not there; make them again"
                raise BadInputError(msg)
            rows = offsets[owners] + versions
        shown[named.key] = values[rows]
    return shown


def shown_labels(
    table: pa.Table, names: Iterable[str], impression_offsets: NDArray[np.int64], path: Path
) -> dict[str, NDArray[np.int8]]:
    """Labels beside the click of each impression: 1, 0, or `NOT_KNOWN` for a null.

    Raises:
        BadInputError: a label is not parallel to the impressions.
    """
    shown = {}
    for name in names:
        offsets, values = _values(table, label_column(name))
        if not np.array_equal(offsets, impression_offsets):
            msg = f"{path}: {label_column(name)} is not parallel to item_ids; make them again"
            raise BadInputError(msg)
        shown[name] = pc.fill_null(values.cast(pa.int8()), NOT_KNOWN).to_numpy()
    return shown


def _ragged_values(table: pa.Table, name: str) -> tuple[NDArray[np.int64], RawValues]:
    """As `_ragged`, of a feature: values may be lists of one length, (n, width)."""
    offsets, values = _values(table, name)
    if not pa.types.is_fixed_size_list(values.type):
        return offsets, values.to_numpy()
    width = values.type.list_size
    return offsets, values.flatten().to_numpy().reshape(-1, width)


def _values(table: pa.Table, name: str) -> tuple[NDArray[np.int64], pa.Array]:
    """Offsets from 0 and values of a list column of any type."""
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # a column of no rows at all
        column = pa.array([], table.schema.field(name).type)
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    return offsets - offsets[0], values


def parallel(
    table: pa.Table, names: tuple[str, ...], path: Path
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """List columns that run in parallel: their one set of offsets, and each one's values."""
    offsets, _ = ragged(table, names[0])
    values = {}
    for name in names:
        own, values[name] = ragged(table, name)
        if not np.array_equal(own, offsets):
            row = int(np.flatnonzero(np.diff(own) != np.diff(offsets))[0])
            msg = (
                f"{path}: row {row}: {name} has {np.diff(own)[row]} entries and {names[0]} "
                f"{np.diff(offsets)[row]}; they must be parallel; make the samples again"
            )
            raise BadInputError(msg)
    return offsets, values


def ragged(table: pa.Table, name: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Offsets from 0 and values of a list column; times become int64 milliseconds."""
    offsets, values = _values(table, name)
    if pa.types.is_timestamp(values.type):
        values = values.view(pa.int64())
    # Arrow packs bool in bits; everything else is viewed in place.
    return offsets, values.to_numpy(zero_copy_only=not pa.types.is_boolean(values.type))
