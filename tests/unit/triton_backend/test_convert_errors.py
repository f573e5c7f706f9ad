from __future__ import annotations

import inspect
import re

import pytest

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton_to_tiles import tile_ir

from asterope.errors import UnsupportedError


def line_of(fn, text):
    """Return the line of this file on which a kernel says something."""
    lines, first = inspect.getsourcelines(fn.fn)
    return first + next(i for i, line in enumerate(lines) if text in line)


# -- locations ------------------------------------------------------------------------------------
@triton.jit
def helper(x):
    return x * x  # in a helper


@triton.jit
def located(x, o, n, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i, mask=i < n)  # the load
    w = helper(v)
    s = tl.sum(tl.sigmoid(w), 0)  # through tl
    total = 0.0
    for k in range(n):  # the loop
        total += tl.load(x + k)  # inside
    tl.store(o, s + total)  # the store


@pytest.mark.parametrize(
    ("op", "text"),
    [("load", "# the load"), ("reduce", "# through tl"), ("exp", "# through tl"),
     ("fdiv", "# through tl"), ("for", "# the loop"), ("store", "# the store")],
)  # fmt: skip
def test_ops_know_the_line_of_the_users_kernel(op, text):
    kernel = tile_ir(located, "*fp32 *fp32 i32", {"B": 16})
    found = next(q for q in kernel.walk() if q.name == op)
    assert re.fullmatch(rf"{re.escape(__file__)}:{line_of(located, text)}:\d+", found.loc)


def test_ops_of_a_users_helper_know_its_line():
    kernel = tile_ir(located, "*fp32 *fp32 i32", {"B": 16})
    product = next(q for q in kernel.walk() if q.name == "fmul" and q.result.type.shape)
    assert product.loc.startswith(f"{__file__}:{line_of(helper, '# in a helper')}:")


def test_ops_inside_a_loop_know_their_line():
    kernel = tile_ir(located, "*fp32 *fp32 i32", {"B": 16})
    (loop,) = (q for q in kernel.walk() if q.name == "for")
    (load,) = (q for q in loop.blocks[0].ops if q.name == "load")
    assert load.loc.startswith(f"{__file__}:{line_of(located, '# inside')}:")


def test_values_keep_the_users_names():
    kernel = tile_ir(located, "*fp32 *fp32 i32", {"B": 16})
    assert next(q for q in kernel.walk() if q.name == "load").result.hint == "v"
    assert [p.name for p in kernel.params] == ["x", "o", "n"]


# -- what is not supported ------------------------------------------------------------------------
@triton.jit
def assembles(x, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, B))
    v = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [v], tl.float32, True, 1)  # here
    tl.store(x + tl.arange(0, B), v)


@triton.jit
def looked_up(i, table):
    return tl.load(table + i)


@triton.jit
def looks_up_inside(x, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(x + i, tl.map_elementwise(looked_up, i, x + 0 * i))  # here


B16 = {"B": 16}
UNSUPPORTED = [
    (assembles, "*fp32", B16, "tt.elementwise_inline_asm of .mov.b32", "inline assembly"),
    (looks_up_inside, "*fp32", B16, "load inside a function", "load before"),
]


@pytest.mark.parametrize(
    ("fn", "signature", "constants", "what", "hint"),
    UNSUPPORTED,
    ids=[case[0].__name__ for case in UNSUPPORTED],
)
def test_unsupported_names_the_op_the_users_line_and_a_hint(fn, signature, constants, what, hint):
    with pytest.raises(UnsupportedError) as caught:
        tile_ir(fn, signature, constants)
    error = caught.value
    assert re.search(what, error.what)
    assert re.fullmatch(rf"{re.escape(__file__)}:{line_of(fn, '# here')}:\d+", error.where)
    assert hint in error.hint
