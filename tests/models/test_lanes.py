"""The functions of the lanes against numpy's in float64."""

import numpy as np
import pytest
from numba import njit

from uic.models.kernels import lanes

X = np.linspace(-20, 20, 16 * 250, dtype=np.float32).reshape(-1, 16)


def apply(function):
    @njit
    def run(x, y):
        for row in range(len(x)):
            lanes.store(y, row, function(lanes.load(x, row)))

    y = np.empty_like(X)
    run(X, y)
    return y


@pytest.mark.parametrize(
    ("name", "expected", "relative", "absolute"),
    [
        ("exp", np.exp, 3e-7, 0),
        ("tanh", np.tanh, 5e-7, 0),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), 0, 2e-7),
        ("softplus", lambda x: np.logaddexp(0, x), 3e-7, 1e-8),
    ],
)
def test_functions_agree_with_numpy(name, expected, relative, absolute):
    found = apply(getattr(lanes, name))
    np.testing.assert_allclose(found, expected(X.astype(np.float64)), rtol=relative, atol=absolute)


def test_rounding_is_numpys_to_half_ties_and_tiny_numbers_included():
    @njit
    def run(x, y, bits):
        for row in range(len(x)):
            lanes.store(y, row, lanes.round_to_half(lanes.load(x, row)))
            lanes.store_halves(bits, row, lanes.load(x, row))

    every_half = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (every_half[1:] + every_half[:-1]) / 2  # ties
    x = np.concatenate([every_half, between, -every_half, np.zeros(1, np.float32)])
    x = np.resize(x, (-(-len(x) // 16), 16))
    y, bits = np.empty_like(x), np.empty(x.shape, np.uint16)
    run(x, y, bits)
    assert np.array_equal(y, x.astype(np.float16).astype(np.float32))
    assert np.array_equal(bits, x.astype(np.float16).view(np.uint16))
