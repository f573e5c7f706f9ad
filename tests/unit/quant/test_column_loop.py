"""What the compiled loop rounds to is what the formats' definition does."""

from __future__ import annotations

import numpy as np
import pytest

from asterope.formats import decode, element, encode
from asterope.quant.column_loop import round_columns


@pytest.mark.parametrize("name", ["e2m1", "e2m3", "e3m2", "e4m3", "e5m2", "int8"])
def test_alone_each_number_is_rounded_as_by_the_definition(name):
    fmt = element(name)
    grid = decode(np.arange(fmt.num_codes).astype(fmt.code_dtype), fmt)
    grid = np.unique(grid[np.isfinite(grid)])
    middles = (grid[1:] + grid[:-1]) / np.float32(2)
    near = [np.nextafter(middles, np.float32(far)) for far in (-np.inf, np.inf)]
    ends = np.array([-0.0, 0.0, 3 * grid[-1], 3 * grid[0]], np.float32)
    values = np.concatenate([grid, middles, *near, ends])[None]
    one = np.ones_like(values)
    codes, errors = round_columns(values.copy(), one, np.eye(1, dtype=np.float32), fmt)
    assert np.array_equal(codes, encode(values, fmt))
    assert np.array_equal(errors, values - decode(codes, fmt))


def test_a_column_makes_up_for_those_before_it():
    fmt, left = element("e2m1"), np.array([[1.2], [0.1], [2.0]], np.float32)
    factor = np.array([[1, 0.5, -1], [0, 2, 0.25], [0, 0, 1]], np.float32)
    codes, errors = round_columns(left.copy(), np.ones_like(left), factor, fmt)
    first = np.float32(1.2) - 1
    second = np.float32(0.1) - np.float32(0.5) * first
    third = np.float32(2) + first - np.float32(0.25) * (second / 2)
    assert decode(codes, fmt)[:, 0].tolist() == [1.0, 0.0, 2.0]
    assert errors[:, 0] == pytest.approx([first, second / 2, third - 2], abs=1e-6)
