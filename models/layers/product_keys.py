"""Exact top-K of a grid of sums, from the top-K of its rows and columns (LMN, eq. 7 to 9).

A table of n values is addressed by sqrt(n) row keys and sqrt(n) column keys: the score of value
`column * sqrt(n) + row` is `row score + column score`. Its K best are among the K best rows
crossed with the K best columns, so K x K sums are looked at and never n.

Ties are decided by rank: a pair is before another if its sum is larger, else if its column, else
if its row ranks higher on its own axis, where equal scores rank by index. This holds in floating
point too, where unequal scores can have equal sums.
"""

import torch
from torch import Tensor


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row, larger first, equal ones by index.

    `torch.topk` leaves open which of equal scores it finds; only the rows where that matters are
    sorted.

    Args:
        scores: (n, m).
        count: at most m.

    Returns:
        Scores and indices, (n, count) each.
    """
    values, index = torch.topk(scores, count, dim=1)
    unclear = (scores >= values[:, -1:]).sum(1) > count
    unclear |= (values[:, 1:] == values[:, :-1]).any(1)
    rows = torch.nonzero(unclear).squeeze(1)
    if rows.numel():
        order = torch.sort(scores[rows], dim=1, descending=True, stable=True)[1][:, :count]
        index = index.index_copy(0, rows, order)
    return scores.gather(1, index), index


def best_products(rows: Tensor, columns: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best of the grid `rows[:, r] + columns[:, c]`.

    Args:
        rows: (n, side), scores of row keys; may ask for a gradient.
        columns: (n, side), scores of column keys.
        count: at most side * side.

    Returns:
        Scores (n, count), and indices `column * side + row` (n, count) int64.
    """
    side = rows.shape[1]
    with torch.no_grad():
        row_scores, row_index = best(rows, min(count, side))
        column_scores, column_index = best(columns, min(count, side))
        # Columns are the slow axis: among equal sums the better column is first, then row.
        sums = column_scores.unsqueeze(2) + row_scores.unsqueeze(1)
        _, place = best(sums.flatten(1), count)
        width = row_index.shape[1]
        column_of = column_index.gather(1, place // width)
        row_of = row_index.gather(1, place % width)
    return rows.gather(1, row_of) + columns.gather(1, column_of), column_of * side + row_of
