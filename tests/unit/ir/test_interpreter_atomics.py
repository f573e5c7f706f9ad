"""What the interpreter says of atomics, against NumPy's own accumulation."""

from __future__ import annotations

import numpy as np
import pytest

from asterope.errors import KernelError
from ir_builder import Writer, interpreted

UFUNCS = {"add": np.add, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
          "mul": np.multiply, "mins": np.minimum, "maxs": np.maximum}  # fmt: skip


def updates(combine, elem, mask=True, order="relaxed"):
    w = Writer(cells=f"ptr<{elem}>", index="ptr<i32>", x=f"ptr<{elem}>", on="ptr<i1>",
               old=f"ptr<{elem}>")  # fmt: skip
    cells = w("addptr", w.broadcast(w["cells"], (4, 8)), w.load("index", (4, 8)))
    x, masks = w.load("x", (4, 8)), (w.load("on", (4, 8)),) if mask else ()
    attrs = {"combine": combine, "memory_order": order, "mask": mask}
    w.store("old", w("atomic_rmw", cells, x, *masks, to=x.type, **attrs))
    return w.done()


def arrays(dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.integers(-99, 99, 5).astype(dtype), rng.integers(0, 5, 32).astype(np.int32),
        rng.integers(-99, 99, 32).astype(dtype), rng.random(32) < 0.7, np.ones(32, dtype),
    ]  # fmt: skip


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("combine", [*UFUNCS, "exchange"])
def test_elements_are_combined_one_after_the_other(combine, mask):
    given = arrays(np.int32)
    cells, index, x, on, _ = given
    got, *_, old = interpreted(updates(combine, "i32", mask), given)
    expected, before = cells.copy(), np.zeros(32, np.int32)
    for i in np.flatnonzero(on) if mask else range(32):
        before[i] = expected[index[i]]
        new = x[i : i + 1]
        merged = new if combine == "exchange" else UFUNCS[combine](expected[index[i]], new)
        expected[index[i]] = merged[0]
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(old, before)


def test_unsigned_extremes_and_narrow_floats():
    given = arrays(np.int32)
    cells, index, x, *_ = given
    got, *_ = interpreted(updates("maxu", "i32", mask=False), given)
    expected = cells.view(np.uint32).copy()
    np.maximum.at(expected, index, x.view(np.uint32))
    np.testing.assert_array_equal(got.view(np.uint32), expected)
    given = arrays(np.float16)
    got, *_ = interpreted(updates("fadd", "fp16", mask=False), given)
    expected = given[0].copy()
    np.add.at(expected, given[1], given[2])
    np.testing.assert_array_equal(got, expected)


def test_compare_and_swap_compares_bits():
    w = Writer(x="ptr<fp32>", expected="ptr<fp32>", new="ptr<fp32>", old="ptr<fp32>")
    operands = (w.load(n, (4,)) for n in ("expected", "new"))
    cas = w("atomic_cas", w.pointers("x", (4,)), *operands, to="fp32[4]", memory_order="acq_rel")
    w.store("old", cas)
    x = np.array([1, np.nan, 0, 3], np.float32)
    expected = np.array([1, np.nan, -0.0, 4], np.float32)
    new = np.array([5, 6, 7, 8], np.float32)
    got, _, _, old = interpreted(w.done(), [x, expected, new, np.zeros(4, np.float32)])
    assert got.tolist() == [5, 6, 0, 3]
    np.testing.assert_array_equal(old, x)


def test_an_atomic_outside_of_all_arrays_names_its_line():
    w = Writer(x="ptr<i32>")
    w.builder.loc = "kernel.py:3"
    at = w("addptr", w["x"], w.const("i32", 4))
    attrs = {"combine": "add", "memory_order": "relaxed"}
    w("atomic_rmw", at, w.const("i32", 1), to="i32", **attrs)
    with pytest.raises(KernelError) as caught:
        interpreted(w.done(), [np.zeros(4, np.int32)])
    assert caught.value.where == "kernel.py:3"
