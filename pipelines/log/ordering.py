"""One day of the log in its order: (partition, time, order of the source), in bounded slices.

Beside a slice, a day larger than one costs 4 bytes a row; half a minute of one partition that is
larger than one costs 24.

The order is one sort of plain integers: partition, milliseconds into the day and place in the
slice are packed into 63 bits, so that the sorted numbers say where each row comes from. That is
several times as fast as a stable sort of two keys.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.features.raw import MISSING
from uic.models.state.shown import PLACED

# Rows that are sorted at once, about 200 MB with their copies. A larger day goes by ranges of
# (partition, time), and what one partition has within `CELL` of time by its sorted row numbers.
SLICE_ROWS = 1 << 21
_PLACE_BITS = 24
_TIME_BITS = 27  # 37 hours in milliseconds: the longest day of any zone has 25 or 26
_CELL_BITS = 15  # 33 seconds
_CELLS = 1 << (_TIME_BITS - _CELL_BITS)


@dataclass(frozen=True)
class Piece:
    """Rows in source order with what they are ordered by."""

    batch: pa.RecordBatch
    partitions: NDArray[np.int32]
    times_ms: NDArray[np.int64]


def ordered_slices(
    pieces: Sequence[Piece], day_start_ms: int, slice_rows: int = SLICE_ROWS
) -> Iterator[tuple[pa.Table, NDArray[np.int32]]]:
    """The rows of one day, ordered, with the partition of each.

    Args:
        pieces: the day's rows in source order.
        day_start_ms: when the day begins; no time is before it.
        slice_rows: about how many rows a slice has.
    """
    rows = sum(piece.batch.num_rows for piece in pieces)
    if rows <= slice_rows:
        yield from _ordered(pieces, day_start_ms)
        return
    cells = [
        piece.partitions * np.int32(_CELLS)
        + ((piece.times_ms - day_start_ms) >> _CELL_BITS).astype(np.int32)
        for piece in pieces
    ]
    size = max(int(cell.max()) for cell in cells if cell.size) + 1
    counts = sum((np.bincount(cell, minlength=size) for cell in cells), np.zeros(size, np.int64))
    for low, high in _ranges(counts, slice_rows):
        if high == low + 1 and counts[low] > slice_rows:
            yield from _crowded(pieces, [cell == low for cell in cells], slice_rows)
            continue
        chosen = []
        for piece, cell in zip(pieces, cells, strict=True):
            inside = np.flatnonzero((cell >= low) & (cell < high))
            if inside.size:
                batch = piece.batch.take(pa.array(inside))
                chosen.append(Piece(batch, piece.partitions[inside], piece.times_ms[inside]))
        yield from _ordered(chosen, day_start_ms)


def _crowded(
    pieces: Sequence[Piece], chosen: Sequence[NDArray[np.bool_]], slice_rows: int
) -> Iterator[tuple[pa.Table, NDArray[np.int32]]]:
    """Rows of one partition that are too many for one slice; sorted by number, taken in parts.

    The items of a list stay together: what comes in two slices would be taken for a repeat.
    """
    inside = [np.flatnonzero(rows) for rows in chosen]
    times = [piece.times_ms[rows] for piece, rows in zip(pieces, inside, strict=True)]
    order = np.argsort(np.concatenate(times), kind="stable")
    ends = np.cumsum([len(rows) for rows in inside])
    heads = np.flatnonzero(_begin_messages(pieces, inside)[order])
    after = np.searchsorted(heads, np.arange(slice_rows, len(order), slice_rows))
    for part in np.split(order, heads[np.unique(after[after < len(heads)])]):
        owner = np.searchsorted(ends, part, side="right")
        taken, places, partitions = [], [], []
        for number in np.unique(owner):
            places.append(np.flatnonzero(owner == number))
            begin = ends[number] - len(inside[number])
            rows = inside[number][part[places[-1]] - begin]
            taken.append(pieces[number].batch.take(pa.array(rows)))
            partitions.append(pieces[number].partitions[rows])
        back = np.argsort(np.concatenate(places))
        yield pa.Table.from_batches(taken).take(pa.array(back)), np.concatenate(partitions)[back]


def _begin_messages(
    pieces: Sequence[Piece], inside: Sequence[NDArray[np.int64]]
) -> NDArray[np.bool_]:
    """Which of the rows `inside`, one piece after the other, are no further item of a list."""
    begin = []
    for piece, rows in zip(pieces, inside, strict=True):
        if PLACED in piece.batch.schema.names:
            places = piece.batch[PLACED].take(pa.array(rows)).fill_null(MISSING)
            begin.append(places.to_numpy() <= 0)
        else:
            begin.append(np.ones(len(rows), np.bool_))
    return np.concatenate(begin)


def _ranges(counts: NDArray[np.int64], slice_rows: int) -> Iterator[tuple[int, int]]:
    """Neighbouring cells that together have about `slice_rows` rows."""
    ends = np.cumsum(counts)
    low, end_of_last = 0, 0
    while end_of_last < ends[-1]:
        high = max(int(np.searchsorted(ends, end_of_last + slice_rows, side="right")), low + 1)
        yield low, high
        low, end_of_last = high, int(ends[high - 1])


def _ordered(
    pieces: Sequence[Piece], day_start_ms: int
) -> Iterator[tuple[pa.Table, NDArray[np.int32]]]:
    if not pieces:
        return
    table = pa.Table.from_batches([piece.batch for piece in pieces]).combine_chunks()
    partitions = np.concatenate([piece.partitions for piece in pieces])
    times = np.concatenate([piece.times_ms for piece in pieces]) - day_start_ms
    if len(times) < 1 << _PLACE_BITS:
        packed = partitions.astype(np.int64) << (_TIME_BITS + _PLACE_BITS)
        packed |= times << _PLACE_BITS
        packed |= np.arange(len(times))
        packed.sort()
        order = packed & ((1 << _PLACE_BITS) - 1)
    else:
        order = np.lexsort((times, partitions))
    yield table.take(pa.array(order)), partitions[order]
