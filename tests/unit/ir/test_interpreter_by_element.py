"""What reductions, scans and maps by a block mean, against Python loops over the stated order."""

from __future__ import annotations

import numpy as np
import pytest

from asterope.ir import Type, dtype_of
from ir_builder import Writer, interpreted


def run(name, arrays, body, shapes, **attrs):
    """Return what an op by a block gives on arrays of i32 (or fp32)."""
    w, values = Writer(), []
    elements = ["fp32" if a.dtype.kind == "f" else "i32" for a in arrays]
    for i, (elem, array) in enumerate(zip(elements, arrays, strict=True)):
        w.param(f"x{i}", f"ptr<{elem}>")
        values.append(w.load(f"x{i}", array.shape))
    to = [Type(elem, shape) for elem, shape in zip(elements, shapes, strict=True)]
    results = w.by_element(name, values, lambda *scalars: body(w, *scalars), to=to, **attrs)
    outs = []
    for i, result in enumerate(results):
        w.param(f"y{i}", f"ptr<{result.type.elem}>")
        w.store(f"y{i}", result)
        outs.append(np.zeros(result.type.num_elements, dtype_of(result.type)))
    flat = [a.reshape(-1) for a in arrays]
    memory = interpreted(w.done(), [*flat, *outs])[len(arrays) :]
    return [m.reshape(t.shape) for m, t in zip(memory, to, strict=True)]


def first_pair(w, a, i, b, j):
    """Neither commutative nor associative: shows the order of combination."""
    return [w("sub", w("mul", a, w.const("i32", 3)), b), w("xor", w("add", i, a), j)]


def python_pair(left, right):
    (a, i), (b, j) = left, right
    return [a * 3 - b, (i + a) ^ j]


def in_order(pairs):
    """Combine as `reduce` states: 64 partials, then halving."""
    width = min(64, len(pairs))
    partials = [list(p) for p in pairs[:width]]
    for at, pair in enumerate(pairs[width:]):
        partials[at % width] = python_pair(partials[at % width], pair)
    while len(partials) > 1:
        half = len(partials) // 2
        partials = [python_pair(partials[k], partials[k + half]) for k in range(half)]
    return partials[0]


@pytest.mark.parametrize("size", [1, 2, 16, 64, 256])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_reduction_by_a_block_has_the_stated_order(axis, size):
    shape = (size, 3) if axis == 0 else (3, size)
    rng = np.random.default_rng(size)
    a, i = (rng.integers(-3, 4, shape, dtype=np.int32) for _ in range(2))
    found = run("reduce", [a, i], first_pair, [(3,), (3,)], axis=axis)
    for k in range(3):
        pairs = list(zip(*(np.take(x, k, 1 - axis).tolist() for x in (a, i)), strict=True))
        wrapped = np.array(in_order(pairs)).astype(np.int64).astype(np.int32)
        assert [f[k] for f in found] == wrapped.tolist()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_by_a_block_goes_strictly_one_after_the_other(reverse):
    rng = np.random.default_rng(1)
    a, i = (rng.integers(-3, 4, (2, 20), dtype=np.int32) for _ in range(2))
    found = run("scan", [a, i], first_pair, [a.shape] * 2, axis=1, reverse=reverse)
    for row in range(2):
        pairs = list(zip(a[row].tolist(), i[row].tolist(), strict=True))
        order = range(19, -1, -1) if reverse else range(20)
        total = None
        for at in order:
            total = list(pairs[at]) if total is None else python_pair(total, pairs[at])
            wrapped = np.array(total, dtype=object) & 0xFFFFFFFF
            assert [int(f[row, at]) & 0xFFFFFFFF for f in found] == wrapped.tolist()


def test_a_map_takes_packs_of_row_major_neighbours():
    a = np.arange(12, dtype=np.int32).reshape(2, 6)
    b = a * 100

    def body(w, a0, a1, a2, b0, b1, b2):
        return [w("sub", a2, a0), a0, b1, w("add", b0, a1), b2, a2]

    left, right = run("map", [a, b], body, [a.shape] * 2, pack=3)
    assert left.tolist() == [[2, 0, 100, 2, 3, 400], [2, 6, 700, 2, 9, 1000]]
    assert right.tolist() == [[1, 200, 2, 304, 500, 5], [607, 800, 8, 910, 1100, 11]]


def test_a_block_may_use_scalars_from_around():
    w = Writer(x="ptr<i32>", n="i32")
    x = w.load("x", (8,))
    (total,) = w.by_element(
        "reduce", [x], lambda a, b: [w("add", w("add", a, b), w["n"])], to=["i32"], axis=0
    )
    w.store("x", total)
    x = np.arange(8, dtype=np.int32)
    (out,) = interpreted(w.done(), [x, 100])
    assert out[0] == 28 + 7 * 100


@pytest.mark.parametrize("size", [1, 8])
def test_exchange_swaps_places_whose_index_differs_in_the_mask(size):
    for mask in range(size):
        w = Writer(x="ptr<i32>")
        w.store("x", w("exchange", w.load("x", (size,)), axis=0, mask=mask))
        (out,) = interpreted(w.done(), [np.arange(size, dtype=np.int32)])
        assert out.tolist() == [i ^ mask for i in range(size)]


def test_a_gather_reads_its_index_without_a_sign_and_stays_inside():
    w = Writer(x="ptr<i32>", i="ptr<i8>", y="ptr<i32>")
    w.store("y", w("gather", w.load("x", (200,)), w.load("i", (4,)), to="i32[4]", axis=0))
    index = np.array([3, 150, 255, 199], np.uint8).view(np.int8)
    *_, out = interpreted(w.done(), [np.arange(200, dtype=np.int32), index, np.zeros(4, np.int32)])
    assert out.tolist() == [3, 150, 199, 199]


def test_a_histogram_counts_only_what_has_a_bin():
    w = Writer(x="ptr<i32>", m="ptr<i1>", y="ptr<i32>")
    counted = w("histogram", w.load("x", (6,)), w.load("m", (6,)), to="i32[3]", mask=True)
    w.store("y", counted)
    x = np.array([0, 2, 2, -1, 3, 2], np.int32)
    mask = np.array([1, 1, 0, 1, 1, 1], np.bool_)
    *_, out = interpreted(w.done(), [x, mask, np.zeros(3, np.int32)])
    assert out.tolist() == [1, 0, 2]
