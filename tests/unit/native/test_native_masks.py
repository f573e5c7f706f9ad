"""Masked accesses touch what is on and nothing else, whatever the compiler knows of the mask."""

from __future__ import annotations

import numpy as np
import pytest
from native_call import compiled

from isas import EACH_ISA

KINDS = {
    "f32": np.float32, "f64": np.float64, "i8": np.int8, "i16": np.int16, "i64": np.int64,
}  # fmt: skip
LANES = (1, 2, 16)


def masks(fn, lanes, row):
    """Yield a mask for each number of lanes on: known to the compiler but for `row`."""
    for count in range(lanes + 1):
        yield count, fn.iota("i32", lanes).lt(count) & row.cmp("ne", 0).splat(lanes)


def expected(x, lanes, other, row):
    on = np.arange(lanes)[None, :] < np.arange(lanes + 1)[:, None]
    return np.where(on & bool(row), x[None, :], np.array(other, x.dtype))


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("other", [0, 7])
@pytest.mark.parametrize("form", ["run", "gather"])
def test_a_masked_load_gives_the_other_value_where_it_is_off(isa, kind, lanes, other, form):
    dtype = np.dtype(KINDS[kind])

    def body(fn, source, target, row):
        steps = fn.iota("i64", lanes) * dtype.itemsize
        for count, mask in masks(fn, lanes, row):
            filler = fn.const(kind, other, lanes)
            if form == "run":
                found = fn.masked_load(source, mask, filler)
            else:
                found = fn.gather(source.offset(steps), mask, filler)
            fn.store(found, target.offset(count * lanes * dtype.itemsize))

    call = compiled(isa, ["ptr", "ptr", "i64"], body)
    x = np.arange(1, lanes + 1).astype(dtype)
    for row in (0, 1):
        found = np.full((lanes + 1, lanes), 99, dtype)
        call(x, found, row)
        np.testing.assert_array_equal(found, expected(x, lanes, other, row))


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("form", ["run", "scatter"])
def test_a_masked_store_leaves_alone_what_is_off(isa, kind, lanes, form):
    dtype = np.dtype(KINDS[kind])

    def body(fn, source, target, row):
        steps = fn.iota("i64", lanes) * dtype.itemsize
        value = fn.load(source, kind, lanes)
        for count, mask in masks(fn, lanes, row):
            at = target.offset(count * lanes * dtype.itemsize)
            if form == "run":
                fn.masked_store(value, at, mask)
            else:
                fn.scatter(value, at.offset(steps), mask)

    call = compiled(isa, ["ptr", "ptr", "i64"], body)
    x = np.arange(1, lanes + 1).astype(dtype)
    for row in (0, 1):
        found = np.full((lanes + 1, lanes), 99, dtype)
        call(x, found, row)
        np.testing.assert_array_equal(found, expected(x, lanes, 99, row))


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(("kind", "wide"), [("i8", "i32"), ("i16", "i32"), ("i8", "i16")])
def test_a_masked_store_of_truncated_numbers_leaves_alone_what_is_off(isa, lanes, kind, wide):
    """The masks are known to the compiler, which stored a single lane as wide as it was before."""
    dtype = np.dtype(KINDS[kind])

    def body(fn, source, target):
        for count in range(lanes + 1):
            value = fn.load(source, wide, lanes).zext(kind)
            at = target.offset(count * lanes * dtype.itemsize)
            fn.masked_store(value, at, fn.iota("i32", lanes).lt(count))

    x = np.arange(1, lanes + 1)
    found = np.full((lanes + 1, lanes), 99, dtype)
    compiled(isa, ["ptr", "ptr"], body)(x.astype(f"i{int(wide[1:]) // 8}"), found)
    np.testing.assert_array_equal(found, expected(x.astype(dtype), lanes, 99, 1))


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_what_a_known_mask_leaves_out_counts_as_zero(isa, kind):
    """LLVM took comparisons of 0 / 0 for false where one lane is on."""
    dtype, lanes = np.dtype(KINDS[kind]), 16

    def body(fn, source, target):
        for count in range(lanes + 1):
            x = fn.masked_load(source, fn.iota("i32", lanes).lt(count), fn.const(kind, 0, lanes))
            share = x / x
            least = (share.is_nan() | x.cmp("olt", share)).where(x, share)
            fn.store(least, target.offset(count * lanes * dtype.itemsize))

    x = np.linspace(-1, 2, lanes).astype(dtype)
    found = np.full((lanes + 1, lanes), 99, dtype)
    compiled(isa, ["ptr", "ptr"], body)(x, found)
    np.testing.assert_array_equal(found, expected(np.minimum(x, 1), lanes, 0, 1))
