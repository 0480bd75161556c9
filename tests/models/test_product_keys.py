"""Top-K by K x K against the full grid, ties included."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uic.models.layers.product_keys import best, best_products


def grid_top(rows, columns, count):
    """The rule itself: all n pairs, by sum, then by rank of the column, then of the row."""
    ranks = [np.empty(axis.size, int) for axis in (rows, columns)]
    for rank, axis in zip(ranks, (rows, columns), strict=True):
        rank[np.argsort(-axis, kind="stable")] = np.arange(axis.size)
    pairs = [
        (-(rows[r] + columns[c]), ranks[1][c], ranks[0][r], c * rows.size + r)
        for c in range(columns.size)
        for r in range(rows.size)
    ]
    return [pair[-1] for pair in sorted(pairs)[:count]]


# Few distinct numbers, so that ties are common; thirds, so that sums round.
SCORES = st.integers(-4, 4).map(lambda value: np.float32(value / 3))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_top_k_is_that_of_the_full_grid(data):
    side = data.draw(st.integers(1, 6))
    count = data.draw(st.integers(1, side * side))
    lists = st.lists(SCORES, min_size=side, max_size=side)
    rows, columns = (np.array(data.draw(lists), np.float32) for _ in range(2))
    scores, index = best_products(
        torch.from_numpy(rows)[None], torch.from_numpy(columns)[None], count
    )
    assert index[0].tolist() == grid_top(rows, columns, count)
    assert scores[0].tolist() == [rows[i % side] + columns[i // side] for i in index[0].tolist()]


def test_unequal_scores_with_equal_sums_are_still_the_grids():
    """1e8 + 1 and 1e8 + 2 are one float32: the rank of the row decides, on both ways."""
    rows, columns = np.float32([1, 2, 0]), np.float32([1e8, 0, 0])
    _, index = best_products(torch.from_numpy(rows)[None], torch.from_numpy(columns)[None], 2)
    assert index[0].tolist() == grid_top(rows, columns, 2) == [1, 0]


def test_a_million_values_are_searched_through_the_grid_of_the_best():
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.randn(2, 3, 1000, generator=generator)
    scores, index = best_products(rows, columns, 16)
    full = (rows.unsqueeze(1) + columns.unsqueeze(2)).flatten(1)
    expected = full.topk(16, dim=1)
    assert torch.equal(index, expected.indices)
    assert torch.equal(scores, expected.values)


def test_equal_scores_are_found_by_index():
    scores = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    values, index = best(scores, 3)
    assert index.tolist() == [[1, 2, 4], [0, 1, 2]]
    assert values.tolist() == [[3, 3, 3], [0, 0, 0]]
