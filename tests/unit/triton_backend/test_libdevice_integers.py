"""libdevice's functions of integers and of bits, against Python's integers."""

from __future__ import annotations

import numpy as np
import pytest
from extern_call import call


def integers(dtype, seed=0, count=64):
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    edges = np.array([0, 1, info.max, info.min, 2, 0xFF, 0x1234567], dtype)
    random = rng.integers(info.min, info.max, count, dtype, endpoint=True)
    return np.concatenate([edges, random, random >> 5])


def bits_of(x, width):
    return f"{x & ((1 << width) - 1):0{width}b}"


def signed(x, width):
    x &= (1 << width) - 1
    return x - (1 << width) if x >> (width - 1) else x


UNARY = {
    "popc": lambda b: b.count("1"),
    "clz": lambda b: len(b) - len(b.lstrip("0")),
    "ffs": lambda b: 0 if "1" not in b else len(b) - b.rindex("1"),
    "brev": lambda b: int(b[::-1], 2),
}


@pytest.mark.parametrize("name", sorted(UNARY))
@pytest.mark.parametrize(("width", "suffix"), [(32, ""), (64, "ll")])
def test_functions_of_bits(name, width, suffix):
    x = integers(f"i{width // 8}")
    got = call(f"__nv_{name}{suffix}", x)
    result = width if name == "brev" else 32
    assert got.dtype == np.dtype(f"i{result // 8}")
    assert got.tolist() == [signed(UNARY[name](bits_of(int(v), width)), result) for v in x]


BINARY = {
    "mulhi": ("i4", lambda a, b: a * b >> 32), "umulhi": ("u4", lambda a, b: a * b >> 32),
    "mul64hi": ("i8", lambda a, b: a * b >> 64), "umul64hi": ("u8", lambda a, b: a * b >> 64),
    "mul24": ("i4", lambda a, b: signed(a, 24) * signed(b, 24)),
    "umul24": ("u4", lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF)),
    "hadd": ("i4", lambda a, b: (a + b) >> 1), "uhadd": ("u4", lambda a, b: (a + b) >> 1),
    "rhadd": ("i4", lambda a, b: (a + b + 1) >> 1),
    "urhadd": ("u4", lambda a, b: (a + b + 1) >> 1),
    "min": ("i4", min), "umax": ("u4", max), "llmax": ("i8", max), "ullmin": ("u8", min),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BINARY))
def test_functions_of_two_integers(name):
    dtype, true = BINARY[name]
    a, b = integers(dtype, 1), np.roll(integers(dtype, 2), 3)
    width = 8 * np.dtype(dtype).itemsize
    expected = [signed(true(int(x), int(y)), width) for x, y in zip(a, b, strict=True)]
    assert call(f"__nv_{name}", a, b).tolist() == expected


@pytest.mark.parametrize(("name", "dtype"), [("sad", "i4"), ("usad", "u4")])
def test_sum_of_absolute_difference(name, dtype):
    a, b, c = (np.roll(integers(dtype, s), s) for s in (1, 2, 3))
    expected = [signed(abs(int(x) - int(y)) + int(z), 32) for x, y, z in zip(a, b, c, strict=True)]
    assert call(f"__nv_{name}", a, b, c).tolist() == expected


def test_byte_perm_picks_bytes_and_repeats_signs():
    x, y = np.array([0x03020100] * 4, np.int32), np.array([0x87868584] * 4, np.uint32)
    selectors = np.array([0x3210, 0x7654, 0x0527, 0xF8FC], np.int32)
    got = call("__nv_byte_perm", x, y, selectors).view(np.uint32)
    assert [hex(v) for v in got] == ["0x3020100", "0x87868584", "0x850287", "0xff00ffff"]


def test_absolute_values_wrap():
    x = np.array([-5, 7, -(1 << 31)], np.int32)
    assert call("__nv_abs", x).tolist() == [5, 7, -(1 << 31)]
    assert call("__nv_llabs", x.astype(np.int64)).tolist() == [5, 7, 1 << 31]


def test_doubles_are_taken_apart_and_put_together():
    x = np.array([1.5, -2.25e-300, np.inf, -0.0])
    high, low = call("__nv_double2hiint", x), call("__nv_double2loint", x)
    joined = (high.astype(np.int64) << 32) | low.view(np.uint32)
    assert joined.tolist() == x.view(np.int64).tolist()
    assert call("__nv_hiloint2double", high, low).tobytes() == x.tobytes()


def test_bits_are_reread():
    x = np.array([1.5, -0.0, np.inf, 1e-45], np.float32)
    assert call("__nv_float_as_int", x).tolist() == x.view(np.int32).tolist()
    assert call("__nv_uint_as_float", x.view(np.int32)).tobytes() == x.tobytes()
    wide = x.astype(np.float64)
    assert call("__nv_double_as_longlong", wide).tolist() == wide.view(np.int64).tolist()
    assert call("__nv_longlong_as_double", wide.view(np.int64)).tobytes() == wide.tobytes()


def test_halves_travel_in_16_bits():
    half = np.array([1.5, -0.0, np.inf, 6e-8, 65504], np.float16)
    assert call("__nv_half2float", half.view(np.int16)).tolist() == half.astype(np.float32).tolist()
    x = np.array([1.0004883, 70000.0, -3e-8, 1e-8, 0.1], np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    assert call("__nv_float2half_rn", x).tolist() == expected.view(np.int16).tolist()
