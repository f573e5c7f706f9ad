"""Kernels of rows: reductions that masks end anywhere, and division by one number."""

from __future__ import annotations

import numpy as np
import pytest

from asterope.compiler import find_tiles, simplify
from asterope.host import write_llvm
from asterope.native import ISAS, available_isas
from ir_builder import Writer, assert_same_bits, launched

SHAPES = [(256,), (128, 4)]


def reducing(shape, axis, combine, *, is_costly):
    """y = reduce(x up to n along the axis, -0.5 beyond), in one parameter each."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", n="i32")
    at = w.iota(shape[axis])
    on = w.along(w.compare("slt", at, w.broadcast(w["n"], at.type.shape)), axis, shape)
    filler = w.broadcast(w.const("fp32", -0.5), shape)
    x = w.load("x", shape, mask=on, other=filler)
    if is_costly:
        x = w("fdiv", x, w("fma", x, x, w.const(x.type, 1.5)))
    w.store("y", w.reduce(x, axis, combine))
    return simplify(find_tiles(w.done()))


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("is_costly", [False, True])
def test_a_reduction_keeps_its_order_wherever_its_mask_ends(isa, is_costly):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        x = rng.standard_normal(shape).astype(np.float32)
        for axis in range(len(shape)):
            kernel = reducing(shape, axis, "fadd", is_costly=is_costly)
            y = np.zeros(x.size // shape[axis], np.float32)
            for n in (0, 1, 63, 65, 128, 150, 193):
                assert_same_bits(kernel, [x, y, n], isa=isa)


@pytest.mark.parametrize("combine", ["fmax", "fminimum"])
def test_of_equal_zeros_the_first_in_the_stated_order_is_kept(combine):
    x = np.zeros(256, np.float32)
    x[[3, 70, 130]] = -0.0
    for first in (0, 64, 128, 192):
        kernel = reducing((256,), 0, combine, is_costly=False)
        assert_same_bits(kernel, [np.roll(x, first), np.zeros(1, np.float32), 256])


# -- asking early ---------------------------------------------------------------------------------
def row_kernel(*, is_costly):
    """Subtract the largest from a program's row, and take the exponential of a costly one."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    first = w("mul", w("program_id", to="i32", axis=0), w.const("i32", 256))
    row = w.load_at(w.pointers(w("addptr", w["x"], first), (256,)))
    below = w("fsub", row, w.broadcast(w.reduce(row, 0, "fmax"), (256,)))
    if is_costly:
        below = w("fdiv", below, w("fma", below, below, w.const(row.type, 1.5)))
        below = w("fdiv", below, w.broadcast(w.reduce(below, 0, "fadd"), (256,)))
    last = w("addptr", w["y"], w("add", first, w.const("i32", 0)))
    w.store_at(w.pointers(last, (256,)), below)
    return simplify(find_tiles(w.done()))


def test_a_costly_row_asks_for_its_target_and_for_the_next_row():
    """The address of the target is computed behind the reduction that asks for it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 256)).astype(np.float32)
    for is_costly in (False, True):
        kernel = row_kernel(is_costly=is_costly)
        for isa in available_isas():
            text = write_llvm(kernel, ISAS[isa], disjoint=True)
            assert (text.count("call void @llvm.prefetch") >= 2) == is_costly
            assert ("@llvm.prefetch" in text) == is_costly
            assert_same_bits(kernel, [x, np.zeros_like(x)], (3, 1, 1), isa=isa)


@pytest.mark.parametrize("is_own", [False, True])
@pytest.mark.parametrize("is_persistent", [False, True])
def test_only_what_differs_from_program_to_program_is_asked_for(is_own, is_persistent):
    """Rows of a program's own are, weights are not: after the first program they are in caches."""
    w = Writer(x="ptr<fp32>", w="ptr<fp32>", y="ptr<fp32>", n="i32")

    def scale(row, i):
        at = w("add", w("mul", row, w["n"]), i)
        x = w.load_at(w.pointers(w("addptr", w["x"], at if is_own else i), (256,)))
        weights = w.load_at(w.pointers(w("addptr", w["w"], i), (256,)))
        x = w("fdiv", x, w("fma", x, weights, w.const(x.type, 1.5)))
        w.store_at(w.pointers(w("addptr", w["y"], at), (256,)), x)
        return ()

    def all_of(row):
        w.for_(0, w["n"], 256, [], lambda i: scale(row, i))
        return ()

    row = w("program_id", to="i32", axis=0)
    if is_persistent:
        w.for_(row, w["n"], w("num_programs", to="i32", axis=0), [], all_of)
    else:
        all_of(row)
    text = write_llvm(simplify(find_tiles(w.done())), ISAS[available_isas()[0]], disjoint=True)
    assert text.count("call void @llvm.prefetch") == is_own


# -- division -------------------------------------------------------------------------------------
def dividing(size):
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", d="fp32")
    w.store("y", w("fdiv", w.load("x", (size,)), w.broadcast(w["d"], (size,))))
    return simplify(find_tiles(w.done()))


def quotients(x, d, isa):
    with np.errstate(all="ignore"):
        return x / np.float32(d), launched(dividing(x.size), [x, x * 0, float(d)], isa=isa)[1]


@pytest.mark.parametrize("isa", available_isas())
def test_a_vector_divided_by_one_number_is_correctly_rounded(isa):
    rng = np.random.default_rng(1)
    for _ in range(12):
        x = rng.integers(0, 1 << 32, 1 << 14, dtype=np.uint64).astype(np.uint32).view(np.float32)
        near = np.abs(rng.standard_normal(1 << 14)).astype(np.float32)
        d = np.float32(rng.standard_normal() * 2.0 ** int(rng.integers(-26, 26)))
        for given in (x, near):
            expected, got = quotients(given, d, isa)
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("isa", available_isas())
def test_a_quotient_between_two_numbers_is_rounded_as_a_divider_does(isa):
    """Quotients next to the middle of two numbers: all by divisors of 12 bits, and all ones."""
    bits = np.arange(1 << 12, dtype=np.uint32)
    ones = np.array([0x3FFFFFFF, 0x3F7FFFFF, 0x3F800001], np.uint32).view(np.float32)
    for d in (*(1 + np.arange(1, 1 << 12, 97) / 4096), *ones):
        wanted = (bits * 2.0**-11 + 1 + 2.0**-24) * float(d)
        x = np.concatenate([np.nextafter(wanted.astype(np.float32), to, dtype=np.float32)
                            for to in (0, 1, 9)])  # fmt: skip
        x = np.concatenate([x, x[: (1 << 14) - len(x)]])
        expected, got = quotients(x, d, isa)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("d", [0.0, -0.0, np.inf, np.nan, 1e-40, 3.0, -3.0, 1e-30, 3e38])
def test_zeros_infinities_and_the_smallest_numbers_go_to_the_divider(d):
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-39, 2.0**-100, 2.0**100, 3e38, 1.0]
    for x in (*(np.full(16, e, np.float32) for e in edges), np.array(edges * 16, np.float32)[:128]):
        expected, got = quotients(x, d, None)
        np.testing.assert_array_equal(got, expected)
        assert (np.signbit(got) == np.signbit(expected))[~np.isnan(got)].all()
