"""Early returns become nested ifs: each block of the source once, whatever its branches."""

from __future__ import annotations

import random

import numpy as np
import pytest

pytest.importorskip("triton")

import triton
import triton.language as tl
from run_triton import run
from triton_to_tiles import tile_ir

from asterope.errors import UnsupportedError
from asterope.ir import verify
from asterope.triton_backend.convert import convert_module
from asterope.triton_backend.ttir import parse_module
from ir_builder import assert_same_bits, interpreted

B8 = {"B": 8}


def check(fn, signature, arguments, expected, constants=None, grid=(1, 1, 1)):
    """Assert what both readers leave in the last array."""
    arrays, kernel, views = run(fn, signature, arguments, constants, grid)
    np.testing.assert_array_equal(arrays[-1], expected)
    assert_same_bits(kernel, views, grid)


# -- kernels --------------------------------------------------------------------------------------
@triton.jit
def returns_where_nothing_is_left(o, n, B: tl.constexpr):
    pid = tl.program_id(0)
    if pid >= n:
        return
    tl.store(o + pid * B + tl.arange(0, B), pid + 1)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_programs_that_return_early_write_nothing(n):
    expected = np.repeat(np.where(np.arange(3) < n, np.arange(3) + 1, 0), 8).astype(np.int32)
    check(returns_where_nothing_is_left, "*i32 i32", [np.zeros(24, np.int32), n], expected, B8,
          (3, 1, 1))  # fmt: skip


@triton.jit
def only_returns(o, n):
    if n > 1:
        return


def test_a_kernel_may_only_return():
    check(only_returns, "*i32 i32", [np.full(2, 7, np.int32), 2], [7, 7])


@triton.jit
def returns_in_nests(o, n, m):
    tl.store(o, 1)
    if n > 0:
        if m > 0:
            if n > m:
                tl.store(o + 1, n)
                return
            tl.store(o + 2, m)
        else:
            if n == 2:
                return
            tl.store(o + 3, n - m)
        tl.store(o + 4, n + m)
    else:
        if m == 0:
            tl.store(o + 5, 5)
            return
        tl.store(o + 6, m)
    tl.store(o + 7, n * 10 + m)


def nests(n, m):
    """Run the kernel above in Python."""
    o = [1, 0, 0, 0, 0, 0, 0, 0]
    if n > 0:
        if m > 0 and n > m:
            o[1] = n
            return o
        if m <= 0 and n == 2:
            return o
        if m > 0:
            o[2] = m
        else:
            o[3] = n - m
        o[4] = n + m
    elif m == 0:
        o[5] = 5
        return o
    else:
        o[6] = m
    o[7] = n * 10 + m
    return o


def test_returns_in_nests_of_ifs_take_pythons_way():
    kernel = tile_ir(returns_in_nests, "*i32 i32 i32")
    for n in range(-1, 4):
        for m in range(-1, 4):
            (got,) = interpreted(kernel, [np.zeros(8, np.int32), n, m])
            np.testing.assert_array_equal(got, nests(n, m))
            assert_same_bits(kernel, [np.zeros(8, np.int32), n, m])


@triton.jit
def grade(x, n):
    if n > 6:
        return x + 1.0, n
    if n > 4:
        n = n - 3
        if n == 3:
            return x * 2.0, n
    x = x - n
    return x, n * 100


@triton.jit
def grades(x, o, k, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    total = 0
    for j in range(k):
        v, n = grade(v, j)
        total += n
        if j % 2 == 0:
            v, n = grade(v, j + 1)
            total += n
    tl.store(o + i, v)
    tl.store(o + B, total.to(tl.float32))


def test_functions_that_return_blocks_early_are_called_from_loops_and_branches():
    def expected_grade(x, n):
        if n > 6:
            return x + 1.0, n
        if n > 4:
            n -= 3
            if n == 3:
                return x * 2.0, n
        return x - n, n * 100

    x = np.arange(8, dtype=np.float32)
    v, total = x, 0
    for j in range(9):
        v, n = expected_grade(v, j)
        total += n
        if j % 2 == 0:
            v, n = expected_grade(v, j + 1)
            total += n
    expected = np.append(v, np.float32(total))
    check(grades, "*fp32 *fp32 i32", [x, np.zeros(9, np.float32), 9], expected, B8)


@triton.jit
def many_ways_out(o, n):
    tl.store(o, 0)
    for i in tl.static_range(1, 12):
        if n > i:
            if n == 2 * i:
                return
            tl.store(o + i, n)
    tl.store(o + 12, 1)


@pytest.mark.parametrize("n", [0, 5, 6, 22])
def test_each_block_is_emitted_once_whatever_the_number_of_returns(n):
    expected = np.zeros(13, np.int32)
    for i in range(1, 12):
        if n == 2 * i:
            break
        if n > i:
            expected[i] = n
    else:
        expected[12] = 1
    check(many_ways_out, "*i32 i32", [np.zeros(13, np.int32), n], expected)
    kernel = tile_ir(many_ways_out, "*i32 i32")
    assert sum(op.name == "store" for op in kernel.walk()) == 13


# -- graphs of blocks that no source has ----------------------------------------------------------
def graph_text(successors):
    """Write a function in which block i stores what it is given to o[i] and branches by c[i]."""
    lines = []
    for i, targets in enumerate(successors):
        head = "%c: !tt.ptr<i1>, %o: !tt.ptr<i32>" if i == 0 else f"%a{i}: i32"
        lines.append(f"^b{i}({head}):")
        if i == 0:
            lines.append('%a0 = "arith.constant"() <{value = 1 : i32}> : () -> i32')
            lines.append('%k = "arith.constant"() <{value = 3 : i32}> : () -> i32')
        lines += [
            f'%i{i} = "arith.constant"() <{{value = {i} : i32}}> : () -> i32',
            f'%p{i} = "tt.addptr"(%o, %i{i}) : (!tt.ptr<i32>, i32) -> !tt.ptr<i32>',
            f'"tt.store"(%p{i}, %a{i}) : (!tt.ptr<i32>, i32) -> ()',
            f'%m{i} = "arith.muli"(%a{i}, %k) : (i32, i32) -> i32',
            f'%n{i} = "arith.addi"(%m{i}, %i{i}) : (i32, i32) -> i32',
        ]
        given = f"(%n{i})[^b{targets[0]}] : (i32) -> ()" if len(targets) == 1 else ""
        if not targets:
            lines.append('"tt.return"() : () -> ()')
        elif len(targets) == 1:
            lines.append(f'"cf.br"{given}')
        else:
            condition, load = "!tt.ptr<i1>", "operandSegmentSizes = array<i32: 1, 0, 0>"
            branch = "operandSegmentSizes = array<i32: 1, 1, 1>"
            to = f"[^b{targets[0]}, ^b{targets[1]}]"
            lines += [
                f'%q{i} = "tt.addptr"(%c, %i{i}) : ({condition}, i32) -> {condition}',
                f'%t{i} = "tt.load"(%q{i}) <{{{load}}}> : ({condition}) -> i1',
                f'"cf.cond_br"(%t{i}, %n{i}, %m{i}){to} <{{{branch}}}> : (i1, i32, i32) -> ()',
            ]
    body = "\n".join(lines)
    return (
        '"builtin.module"() ({ "tt.func"() <{sym_name = "k", sym_visibility = "public"}> ({\n'
        f"{body}\n}}) : () -> () }}) : () -> ()"
    )


def walk(successors, choices):
    """Run the function above in Python."""
    o = np.zeros(len(successors), np.int32)
    at, given = 0, 1
    while True:
        given = (given + 2**31) % 2**32 - 2**31
        o[at] = given
        targets = successors[at]
        if not targets:
            return o
        if len(targets) == 1:
            at, given = targets[0], given * 3 + at
        else:
            then = choices[at]
            given = given * 3 + (at if then else 0)
            at = targets[0 if then else 1]


def random_graph(rng, size):
    """Return successors of each block, all of them later ones; the last block returns."""
    graph = []
    for i in range(size):
        later = range(i + 1, min(size, i + 5))
        count = rng.choice((0, 1, 2, 2, 2, 2)) if i else 2
        graph.append([rng.choice(later) for _ in range(count)] if later else [])
    return graph


@pytest.mark.parametrize("seed", range(12))
def test_any_acyclic_graph_of_blocks_goes_where_its_branches_say(seed):
    rng = random.Random(seed)
    size = 3 + seed
    graph = random_graph(rng, size)
    kernel = convert_module(parse_module(graph_text(graph)))
    verify(kernel)
    stored = [op for op in kernel.walk() if op.name == "store"]
    assert len(stored) <= size
    for _ in range(20):
        choices = np.array([rng.random() < 0.5 for _ in range(size)])
        arrays = [choices, np.zeros(size, np.int32)]
        _, got = interpreted(kernel, arrays)
        np.testing.assert_array_equal(got, walk(graph, choices))
    assert_same_bits(kernel, arrays)


def test_a_loop_made_of_branches_is_refused():
    text = graph_text([[1], [1, 2], []])
    with pytest.raises(UnsupportedError, match="a loop made of branches"):
        convert_module(parse_module(text))


def test_a_branch_to_no_block_is_refused():
    with pytest.raises(UnsupportedError, match="a block that is branched to"):
        parse_module(graph_text([[7], []]))
