from __future__ import annotations

import numpy as np
import pytest

from asterope.errors import FormatError
from asterope.formats import decode, element, encode, uniform32

NAMES = ["bf16", "fp16", "e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "e1m2", "int8", "int4"]
NUM = 100_000


def mix(x):
    """Scramble with Python integers: the same hash, written a second time."""
    x = ((x ^ x >> 16) * 0x7FEB352D) % 2**32
    x = ((x ^ x >> 15) * 0x846CA68B) % 2**32
    return x ^ x >> 16


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_uniform32_is_the_documented_hash(seed):
    indices = [0, 1, 2, 1000, 2**32 - 1, 2**32, 2**40 + 5]
    expected = [mix((mix(i % 2**32 ^ mix(seed)) + mix(i >> 32) + seed) % 2**32) for i in indices]
    assert uniform32(seed, np.array(indices, np.uint64)).tolist() == expected


def test_uniform32_is_uniform_in_every_bit():
    u = uniform32(5, np.arange(NUM, dtype=np.uint64))
    ones = np.unpackbits(u.view(np.uint8).reshape(-1, 4), axis=1).mean(axis=0)
    sigma = 0.5 / np.sqrt(NUM)
    assert np.abs(ones - 0.5).max() < 5 * sigma
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / np.sqrt(NUM)


def test_seeds_outside_32_bits_are_refused():
    with pytest.raises(FormatError, match=r"seed: seed 4294967296 is outside 0\.\.4294967295"):
        uniform32(1 << 32, np.arange(2, dtype=np.uint64))


@pytest.mark.parametrize("fraction", [2.0**-10, 0.25, 0.5, 0.9375])
@pytest.mark.parametrize("name", NAMES)
def test_expected_value_is_the_input(name, fraction):
    fmt = element(name)
    lower, upper = fmt.value(2), fmt.value(3)
    x = np.full(NUM, lower + fraction * (upper - lower), np.float32)
    exact = (float(x[0]) - lower) / (upper - lower)
    rounded = decode(encode(x, name, rounding="stochastic", seed=11), name).astype(np.float64)
    assert set(rounded) == {lower, upper}
    sigma = np.sqrt(exact * (1 - exact) / NUM)
    assert abs((rounded == upper).mean() - exact) < 4 * sigma


@pytest.mark.parametrize("name", NAMES)
def test_result_is_one_of_the_two_neighbours(name):
    limit = min(element(name).max_value, 1e4)
    x = np.random.default_rng(0).uniform(-limit, limit, 10_000).astype(np.float32)
    down = np.abs(decode(encode(x, name, rounding="toward_zero"), name))
    got = np.abs(decode(encode(x, name, rounding="stochastic", seed=3), name))
    up_codes = encode(down, name).astype(int) + (down != np.abs(x))
    up = np.array([element(name).value(code) for code in up_codes])
    assert ((got == down) | (got == up)).all()
    assert (got == down).any()
    assert (got != down).any()


def test_same_seed_gives_same_codes_in_any_shape_and_another_seed_others():
    x = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32)
    codes = encode(x, "e2m1", rounding="stochastic", seed=9)
    flat = encode(x.ravel(), "e2m1", rounding="stochastic", seed=9)
    np.testing.assert_array_equal(codes.ravel(), flat)
    np.testing.assert_array_equal(codes, encode(x, "e2m1", rounding="stochastic", seed=9))
    assert (codes != encode(x, "e2m1", rounding="stochastic", seed=10)).mean() > 0.1
