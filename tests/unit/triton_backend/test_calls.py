"""Functions that Triton leaves as calls are put in place of them."""

from __future__ import annotations

import inspect
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("triton")

import triton
import triton.language as tl
from run_triton import run
from triton_to_tiles import tile_ir

from asterope.errors import UnsupportedError
from asterope.triton_backend.convert import convert_module
from asterope.triton_backend.ttir import parse_module
from ir_builder import assert_same_bits


def check(fn, signature, arguments, expected, constants=None, grid=(1, 1, 1)):
    arrays, kernel, views = run(fn, signature, arguments, constants, grid)
    np.testing.assert_array_equal(arrays[-1], expected)
    assert_same_bits(kernel, views, grid)


@triton.jit(noinline=True)
def swap_if(a, b, n):
    if n % 2 == 1:
        return b, a
    return a, b  # as they are


@triton.jit(noinline=True)
def mixed(a, b, n):
    a, b = swap_if(a + 1, b, n)
    if a > b:
        a, b = swap_if(a, b + n, 1)
    return a, b, a * b


@triton.jit
def calls(o, k):
    a, b = 3, 40
    for i in range(k):
        a, b, c = mixed(a, b, i)
        if c > 200:
            a, b = swap_if(a - c, b, i + 1)
        tl.store(o + 3 * i + 2, c)
        tl.store(o + 3 * i + 1, b)
        tl.store(o + 3 * i, a)


def test_functions_that_are_not_inlined_work_from_loops_branches_and_each_other():
    def swapped(a, b, n):
        return (b, a) if n % 2 == 1 else (a, b)

    expected, a, b = [], 3, 40
    for i in range(6):
        a, b = swapped(a + 1, b, i)
        if a > b:
            a, b = b + i, a
        c = a * b
        if c > 200:
            a, b = swapped(a - c, b, i + 1)
        expected += [a, b, c]
    check(calls, "*i32 i32", [np.zeros(18, np.int32), 6], expected)


def test_ops_of_a_called_function_keep_its_lines():
    kernel = tile_ir(calls, "*i32 i32")
    lines, first = inspect.getsourcelines(swap_if.fn)
    mine = range(first, first + len(lines))
    found = [int(op.loc.split(":")[1]) for op in kernel.walk() if op.name == "rems"]
    assert found
    assert all(line in mine for line in found)


@triton.jit(noinline=True)
def stores(p, v):
    tl.store(p, v)


@triton.jit
def calls_for_effect(o):
    for i in range(3):
        stores(o + i, i + tl.program_id(0))


def test_a_called_function_may_only_have_effects():
    check(calls_for_effect, "*i32", [np.zeros(3, np.int32)], [0, 1, 2])


def test_a_function_that_calls_itself_is_refused():
    call = '"tt.call"() <{callee = @"f <odd>"}> : () -> ()'
    text = f"""
"builtin.module"() ({{
  "tt.func"() <{{sym_name = "k", sym_visibility = "public"}}> ({{
    {call} loc("k.py":3:1)
    "tt.return"() : () -> ()
  }}) : () -> ()
  "tt.func"() <{{sym_name = "f <odd>", sym_visibility = "private"}}> ({{
    {call} loc("f.py":7:1)
    "tt.return"() : () -> ()
  }}) : () -> ()
}}) : () -> ()"""
    with pytest.raises(UnsupportedError, match="calls itself") as caught:
        convert_module(parse_module(text))
    assert caught.value.where == "f.py:7:1"


# -- tuples ---------------------------------------------------------------------------------------
class Range(NamedTuple):
    low: object
    high: object


@triton.jit
def widened(r, by):
    return Range(r.low - by, r.high + by)


@triton.jit
def carries_tuples(o, k):
    r = Range(0, 1)
    pair = (r, 5)
    for i in range(k):
        r = widened(r, i)
        pair = (r, pair[1] + pair[0].high)
    tl.store(o, r.low)
    tl.store(o + 1, r.high)
    tl.store(o + 2, pair[1])


def test_loops_carry_tuples_and_named_tuples():
    low, high, last, total = 0, 1, 1, 5
    for i in range(5):
        low, high = low - i, high + i
        total += last
        last = high
    check(carries_tuples, "*i32 i32", [np.zeros(3, np.int32), 5], [low, high, total])
