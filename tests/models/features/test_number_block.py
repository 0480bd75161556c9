"""Numbers that are encoded together are to the bit what each is by itself."""

import numpy as np
import pytest

from uic.models.features.definition import Feature, Kind, NamedFeature, Owner, Scale
from uic.models.features.fitted import FittedFeature, NumberBlock

NONE = np.zeros(0, np.int64)


def number(name: str, scale: Scale, mean: float, spread: float) -> FittedFeature:
    named = NamedFeature(Owner.STATE, name, Feature(type=Kind.NUMBER, scale=scale))
    return FittedFeature(named, NONE, NONE.astype(np.float32), mean, spread)


@pytest.mark.parametrize("rows", [0, 1, 200])
def test_a_block_encodes_as_each_feature_does(rows: int) -> None:
    scales = [Scale.LOG, Scale.NONE] * 4
    draw = np.random.default_rng(rows)
    features = [
        number(f"n{at}", scale, *draw.uniform(0.1, 3.0, 2).tolist())
        for at, scale in enumerate(scales)
    ]
    values = (draw.exponential(50, (rows, 8)) * draw.choice([-1, 0, 1, 1], (rows, 8))).astype("f4")
    values[draw.random((rows, 8)) < 0.2] = np.nan
    block = NumberBlock.of(features)
    expected = [one.encode(values[:, at]) for at, one in enumerate(features)]
    found = block.encode(values)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.concatenate(expected, axis=1))


def test_what_is_looked_up_is_no_block() -> None:
    buckets = number("buckets", Scale.BUCKETS, 0.0, 1.0)
    assert NumberBlock.of([number("n", Scale.LOG, 0.0, 1.0), buckets]) is None
