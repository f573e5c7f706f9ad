from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("triton")

import triton
import triton.language as tl
from run_triton import ELEMENTS, random_array, run
from triton_to_tiles import tile_ir

from ir_builder import assert_same_bits


@triton.jit
def shapes(x, o, M: tl.constexpr, N: tl.constexpr):
    r, c = tl.arange(0, M), tl.arange(0, N)
    at = r[:, None] * N + c[None, :]
    v = tl.load(x + at)
    size = M * N
    tl.store(o + tl.arange(0, M * N), tl.reshape(tl.trans(v), (M * N,)))
    turned = tl.permute(tl.reshape(v, (M, N // 4, 4)), (2, 0, 1))
    tl.store(o + size + tl.arange(0, M * N), tl.reshape(turned, (M * N,)))
    a, b = tl.split(tl.reshape(v, (M, N // 2, 2)))
    tl.store(o + 2 * size + tl.arange(0, M * N), tl.reshape(tl.join(b, a), (M * N,)))
    row = tl.sum(v, 0)
    tl.store(o + 3 * size + at, tl.broadcast_to(row[None, :], (M, N)) - v)
    tl.store(
        o + 4 * size + tl.arange(0, M * N),
        tl.interleave(tl.ravel(v), tl.ravel(v)).reshape(2, M * N).sum(0),
    )


@pytest.mark.parametrize("elem", ["fp32", "i32", "i8"])
def test_shape_operations_move_elements(elem):
    m, n = 8, 16
    x = (np.arange(m * n) % 50).astype(ELEMENTS[elem]).reshape(m, n)
    out = np.zeros(5 * m * n, x.dtype)
    (_, out), kernel, views = run(shapes, f"*{elem} *{elem}", [x, out], {"M": m, "N": n})
    got = out.reshape(5, -1)
    np.testing.assert_array_equal(got[0], x.T.reshape(-1))
    np.testing.assert_array_equal(got[1], x.reshape(m, n // 4, 4).transpose(2, 0, 1).reshape(-1))
    pairs = x.reshape(-1, 2)
    np.testing.assert_array_equal(got[2], pairs[:, ::-1].reshape(-1))
    row = x.astype(np.int64).sum(0).astype(x.dtype)
    np.testing.assert_array_equal(got[3], (row - x).astype(x.dtype).reshape(-1))
    flat = np.repeat(x.reshape(-1), 2).reshape(2, -1)
    np.testing.assert_array_equal(got[4], flat.astype(np.int64).sum(0).astype(x.dtype))
    assert_same_bits(kernel, views)


@triton.jit
def reductions(x, o, M: tl.constexpr, N: tl.constexpr, AXIS: tl.constexpr, SIZE: tl.constexpr):
    v = tl.load(x + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :])
    i = tl.arange(0, SIZE)
    tl.store(o + i, tl.sum(v, AXIS))
    tl.store(o + SIZE + i, tl.max(v, AXIS))
    tl.store(o + 2 * SIZE + i, tl.min(v, AXIS))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("elem", ["fp32", "i32", "i64", "u32", "fp16", "bf16"])
def test_reductions_along_either_axis(elem, axis):
    m, n = 8, 32
    x = random_array(elem, m * n).reshape(m, n)
    size = (n, m)[axis]
    out = np.zeros(3 * size, x.dtype)
    constants = {"M": m, "N": n, "AXIS": axis, "SIZE": size}
    (_, out), kernel, views = run(reductions, f"*{elem} *{elem}", [x, out], constants)
    got = out.reshape(3, size)
    wide = x.astype(np.float64) if x.dtype.kind not in "iu" else x
    tolerance = {"fp16": 5e-3, "bf16": 5e-2}.get(elem, 1e-5)
    total = wide.sum(axis, dtype=None if x.dtype.kind not in "iu" else x.dtype)
    np.testing.assert_allclose(
        got[0].astype(total.dtype), total, rtol=tolerance, atol=tolerance * 10
    )
    np.testing.assert_array_equal(got[1].astype(wide.dtype), wide.max(axis))
    np.testing.assert_array_equal(got[2].astype(wide.dtype), wide.min(axis))
    assert_same_bits(kernel, views)


# -- control --------------------------------------------------------------------------------------
@triton.jit
def loops(x, o, n):
    total = 0.0
    for i in range(n):
        v = tl.load(x + i)
        if v > 0:
            total += v
        else:
            total -= 2 * v
    tl.store(o, total)
    i = 0
    while (i < n) and (total > 1.0):
        total = total / 2
        i += 1
    tl.store(o + 1, total)
    tl.store(o + 2, i.to(tl.float32))
    a, b = 1, 1
    for j in range(2, n, 2):
        a, b = b, a + b + j
    tl.store(o + 3, a.to(tl.float32))
    tl.store(o + 4, b.to(tl.float32))
    down = 0
    for k in range(5, 0, -1):
        down = down * 10 + k
    tl.store(o + 5, down.to(tl.float32))


@pytest.mark.parametrize("n", [0, 1, 7, 20])
def test_loops_and_branches_run_as_in_python(n):
    x = random_array("fp32", 32)
    (_, got), kernel, views = run(loops, "*fp32 *fp32 i32", [x, np.zeros(6, np.float32), n])
    assert_same_bits(kernel, views)
    total = np.float32(0)
    for v in x[:n]:
        total = np.float32(total + v) if v > 0 else np.float32(total - np.float32(2 * v))
    expected = [total]
    i = 0
    while i < n and total > 1:
        total, i = np.float32(total / 2), i + 1
    a, b = 1, 1
    for j in range(2, n, 2):
        a, b = b, a + b + j
    np.testing.assert_array_equal(got, np.array([*expected, total, i, a, b, 54321], np.float32))


@triton.jit
def scalars(x, o, n, s, flag, big):
    pid = tl.program_id(0) + 10 * tl.program_id(1) + 100 * tl.program_id(2)
    at = tl.program_id(0) + tl.num_programs(0) * (
        tl.program_id(1) + tl.num_programs(1) * tl.program_id(2)
    )
    value = tl.load(x + n) * s + pid
    if flag:
        value = -value
    tl.store(o + at, value + (big // 1000000000).to(tl.float32))


@pytest.mark.parametrize("flag", [0, 1])
def test_scalar_arguments_and_program_ids(flag):
    x = random_array("fp32", 8)
    arguments = [x, np.zeros(24, np.float32), 3, 2.5, flag, 7_000_000_000]
    (_, out), kernel, views = run(scalars, "*fp32 *fp32 i32 fp32 i1 i64", arguments, grid=(2, 3, 4))
    assert_same_bits(kernel, views, (2, 3, 4))
    programs = [a + 10 * b + 100 * c for c in range(4) for b in range(3) for a in range(2)]
    value = np.float32(x[3] * np.float32(2.5)) + np.array(programs, np.float32)
    np.testing.assert_allclose(out, (-value if flag else value) + 7, rtol=1e-6)


@triton.jit
def numbered(x_1, x_2, x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + i, tl.load(x_1 + i) - tl.load(x_2 + i) * tl.load(x + i))


def test_parameters_that_differ_in_a_number_stay_different():
    arrays = [np.full(16, v, np.float32) for v in (5, 3, 2)]
    (*_, out), kernel, _ = run(
        numbered, "*fp32 *fp32 *fp32 *fp32", [*arrays, np.zeros(16, np.float32)], {"B": 16}
    )
    assert out.tolist() == [-1] * 16
    assert [p.name for p in kernel.params] == ["x_1", "x_2", "x", "o"]


def test_what_the_front_end_knows_of_a_parameter_is_kept():
    kernel = tile_ir(numbered, "*fp32 *fp32 *fp32 *fp32", {"B": 16}, divisible=["x_2", "o"])
    assert [p.divisibility for p in kernel.params] == [1, 16, 1, 16]


@triton.jit
def optional(x, o, n, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i, mask=i < n, other=7.0, cache_modifier=".cg", eviction_policy="evict_last")
    tl.store(o + i, v, mask=i % 2 == 0)


def test_masks_and_other_follow_the_users_words():
    x = random_array("fp32", 16)
    (_, out), kernel, views = run(
        optional, "*fp32 *fp32 i32", [x, np.zeros(16, np.float32), 5], {"B": 16}
    )
    expected = np.where(np.arange(16) < 5, x, 7)
    np.testing.assert_array_equal(out, np.where(np.arange(16) % 2 == 0, expected, 0))
    assert_same_bits(kernel, views)


@triton.jit
def block_pointers(x, o, M, N, BM: tl.constexpr, BN: tl.constexpr):
    p = tl.make_block_ptr(x, (M, N), (N, 1), (0, 0), (BM, BN), (1, 0))
    q = tl.make_block_ptr(o, (M, N), (N, 1), (0, 0), (BM, BN), (1, 0))
    for _ in range(0, N, BN):
        tl.store(q, tl.load(p, boundary_check=(0, 1)) * 2, boundary_check=(0, 1))
        p, q = tl.advance(p, (0, BN)), tl.advance(q, (0, BN))


@pytest.mark.filterwarnings("ignore:tl.make_block_ptr is deprecated")
def test_block_pointers_become_pointers_and_masks():
    x = random_array("fp32", 5 * 20).reshape(5, 20)
    (_, out), kernel, views = run(
        block_pointers, "*fp32 *fp32 i32 i32", [x, np.zeros_like(x), 5, 20], {"BM": 8, "BN": 16}
    )
    np.testing.assert_array_equal(out, 2 * x)
    assert_same_bits(kernel, views)


@triton.jit
def products(a, b, c, o, B: tl.constexpr, OUT: tl.constexpr):
    at = tl.arange(0, B)[:, None] * B + tl.arange(0, B)[None, :]
    acc = tl.load(c + at)
    tl.store(o + at, tl.dot(tl.load(a + at), tl.load(b + at), acc, out_dtype=OUT))


@pytest.mark.parametrize(
    ("elem", "total", "out"),
    [("i8", "i32", tl.int32), ("fp16", "fp16", tl.float16), ("fp16", "fp32", tl.float32),
     ("bf16", "fp32", tl.float32), ("fp8e5", "fp32", tl.float32), ("fp32", "fp32", tl.float32)],
)  # fmt: skip
def test_dot_adds_in_its_output_type(elem, total, out):
    a, b = (random_array(elem, 256, seed).reshape(16, 16) for seed in (0, 1))
    c = random_array(total, 256, 2).reshape(16, 16)
    c = c // 2 if total == "i32" else c
    signature = f"*{elem} *{elem} *{total} *{total}"
    constants = {"B": 16, "OUT": out}
    (*_, got), kernel, views = run(products, signature, [a, b, c, np.zeros_like(c)], constants)
    assert_same_bits(kernel, views)
    wide = np.int64 if elem == "i8" else np.float64
    exact = a.astype(wide) @ b.astype(wide) + c.astype(wide)
    tolerance = {"i32": 0, "fp16": 1e-3, "fp32": 1e-5}[total]
    np.testing.assert_allclose(got.astype(wide), exact, rtol=tolerance, atol=tolerance * 30)


@triton.jit
def hints(x, n, B: tl.constexpr):
    tl.assume(n > 0)
    at = tl.max_contiguous(tl.multiple_of(tl.arange(0, B), B), B)
    v = tl.load(x + at)
    tl.debug_barrier()
    tl.store(x + at, v * 2)


def test_promises_and_barriers_compute_nothing():
    x = random_array("fp32", 16)
    (out,), _, _ = run(hints, "*fp32 i32", [x, 3], {"B": 16})
    np.testing.assert_array_equal(out, 2 * x)
