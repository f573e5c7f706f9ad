"""Products of bf16 on tile registers or by pairs: on those of this CPU, and emulated."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from test_host_matmul import operands, product, scaled, scaled_arguments

from asterope.host import HostKernel
from asterope.ir import parse_kernel
from asterope.native import ISAS, available_isas
from ir_builder import Writer, describe, differing, extents_of, interpreted

BF16 = ml_dtypes.bfloat16
BASE = ISAS["avx512" if "avx512" in available_isas() else available_isas()[0]]
EMULATED = [
    dataclasses.replace(BASE, name=f"{what}-emulated", emulates_products=True, **{what: True})
    for what in ("has_tiles", "has_bf16_dot")
]
TILES = [*EMULATED, *(ISAS[name] for name in available_isas() if ISAS[name].multiplies_bf16)]


def assert_tiles_agree(kernel, arguments, grid=(1, 1, 1)):
    """Compare native code with tile registers with the interpreter."""
    expected = interpreted(kernel, arguments, grid)
    for isa in TILES:
        copies = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        arrays = [a for a in copies if isinstance(a, np.ndarray)]
        raw = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in copies]
        HostKernel(kernel, isa).launch(grid, raw, extents_of(arrays))
        for got, wanted in zip(arrays, expected, strict=False):
            differ = differing(got, wanted)
            assert not differ.any(), f"{isa.name}: {describe(got, wanted, differ)}"


@pytest.mark.parametrize("elem", ["bf16", "e4m3", "e5m2fnuz"])
@pytest.mark.parametrize("turn", ["", "a", "b"])
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [
        (16, 32, 16),
        (3, 32, 48),
        *(pytest.param(*x, marks=pytest.mark.slow) for x in ((32, 64, 32), (48, 96, 16))),
    ],
)
def test_tiles_sum_in_the_order_of_pairs(elem, turn, m, k, n):
    assert_tiles_agree(product(elem, m, k, n, turn=turn), operands(elem, m, k, n, seed=7))


SPECIALS = {
    "infinities and NaN": [np.inf, -np.inf, np.nan, 0.0, -0.0],
    "subnormals": [1e-40, -1e-40, 9.2e-41, 0.0],
    "tiny": [1e-20, 2e-19, -3e-25, 1.2e-38],
    "huge": [3e38, -3e38, 1e30, 65536.0],
    "subnormals and huge": [1e-40, -2e-40, 3e38, 1e30],
}


@pytest.mark.parametrize("left", SPECIALS)
@pytest.mark.parametrize("right", SPECIALS)
def test_tiles_keep_special_values(left, right):
    rng = np.random.default_rng(8)
    a, b, c, y = operands("bf16", 16, 32, 16, seed=9)
    a = np.where(rng.random(a.shape) < 0.5, rng.choice(SPECIALS[left], a.shape), a).astype(a.dtype)
    b = rng.choice(SPECIALS[right], b.shape).astype(b.dtype)
    assert_tiles_agree(product("bf16", 16, 32, 16), [a, b, c, y])
    a = rng.choice(SPECIALS[left], a.shape).astype(a.dtype)
    assert_tiles_agree(product("bf16", 16, 32, 16), [a, b, c * 0, y])


def test_a_nan_whose_payload_does_not_fit_bf16_stays_one():
    w = Writer(x="ptr<fp32>", b="ptr<bf16>", y="ptr<fp32>")
    a = w.convert(w.load("x", (16, 32)), "bf16")
    acc = w.const("fp32[16,16]", 0.0)
    w.store("y", w("dot", a, w.load("b", (32, 16)), acc, to=acc.type, order="pairs"))
    x = np.ones((16, 32), np.float32)
    x.view(np.uint32)[3, 5] = 0x7F80_0001
    b = np.ones((32, 16), ml_dtypes.bfloat16)
    assert_tiles_agree(w.done(), [x, b, np.zeros((16, 16), np.float32)])


@pytest.mark.parametrize("formats", [("e4m3", "e4m3"), ("e2m1", "e5m2"), ("bf16", "bf16")])
@pytest.mark.parametrize("scale", ["i8", "e4m3"])
def test_scaled_operands_on_tiles_are_as_exact_as_elsewhere(formats, scale):
    kernel = scaled(*formats, scale=scale, group=32, m=8, n=16, k=64)
    assert_tiles_agree(kernel, scaled_arguments(kernel, seed=10))


@pytest.mark.parametrize("exponents", [(0, 254), (1, 200), (0, 127), (20, 120), (254, 254)])
def test_scales_that_make_subnormals_do_not_lose_bits_on_tiles(exponents):
    kernel = scaled("e4m3", "e4m3")
    arguments = scaled_arguments(kernel, seed=11)
    scales = arguments[2].view(np.uint8)
    scales[:16], scales[16:] = exponents
    assert_tiles_agree(kernel, arguments)


# -- sums that a loop carries ---------------------------------------------------------------------
LOOP = """
kernel @sums(%a: ptr<bf16>, %b: ptr<bf16>, %c: ptr<fp32>, %rounds: i32) {{
  %zero = const() {{value = 0}} : i32
  %one = const() {{value = 1}} : i32
  %wide = const() {{value = 32}} : i32
  %size = const() {{value = 1024}} : i32
  %a_size = const() {{value = 10240}} : i32
  %pid = program_id() {{axis = 0}} : i32
  %line = iota() {{start = 0}} : i32[32]
  %pitch = const() {{value = 320}} : i32[32]
  %wides = const() {{value = 32}} : i32[32]
  %a_rows = mul(%line, %pitch) : i32[32]
  %rows = mul(%line, %wides) : i32[32]
  %a_skip = mul(%pid, %a_size) : i32
  %c_skip = mul(%pid, %size) : i32
  %other = divs(%pid, %divisor) : i32
  %b_skip = mul(%other, %wide) : i32
  %a0 = addptr(%a, %a_skip) : ptr<bf16>
  %b0 = addptr(%b, %b_skip) : ptr<bf16>
  %c0 = addptr(%c, %c_skip) : ptr<fp32>
  {start}
  %pa, %pb, %sum = for(%zero, %rounds, %one, %a0, %b0, %acc) {{
    (%i: i32, %qa: ptr<bf16>, %qb: ptr<bf16>, %so_far: fp32[32,32]):
    %x = load_tile(%qa, %a_rows, %line) {{}} : bf16[32,32]
    %y = load_tile(%qb, %rows, %line) {{}} : bf16[32,32]
    %d = dot(%x, %y, %so_far) {{order = "pairs"}} : fp32[32,32]
    %ra = addptr(%qa, %wide) : ptr<bf16>
    %rb = addptr(%qb, %size) : ptr<bf16>
    yield(%ra, %rb, %d)
  }} : ptr<bf16>, ptr<bf16>, fp32[32,32]
  store_tile(%sum, %c0, %rows, %line) {{}}
  {end}
  return()
}}
"""
ZERO = "%acc = const() {value = 0.0} : fp32[32,32]"
LOADED = "%acc = load_tile(%c0, %rows, %line) {} : fp32[32,32]"
OVERWRITE = """%narrow = convert(%sum) {how = "float"} : bf16[32,32]
  store_tile(%narrow, %b0, %rows, %line) {}"""


def sums(start=ZERO, end="", divisor=1000):
    text = LOOP.replace(
        "%other =", f"%divisor = const() {{{{value = {divisor}}}}} : i32\n  %other ="
    )
    return parse_kernel(text.format(start=start, end=end))


def sum_arguments(rounds, programs=3):
    rng = np.random.default_rng(20)
    a = rng.standard_normal((programs, 32, 320)).astype(BF16)
    b = rng.standard_normal(10 * 1024 + 64).astype(BF16)
    return [a, b, np.ones((programs, 32, 32), np.float32), rounds]


@pytest.mark.parametrize("rounds", [0, 1, 8, 10])
@pytest.mark.parametrize("start", [ZERO, LOADED])
def test_products_may_be_collected_before_they_are_computed(rounds, start):
    assert_tiles_agree(sums(start), sum_arguments(rounds), (3, 1, 1))


@pytest.mark.parametrize("start", [ZERO, LOADED])
def test_a_product_that_tiles_would_get_wrong_keeps_its_turn(start):
    a, b, c, rounds = sum_arguments(10)
    a[1, :, 96:128], b[3 * 1024 : 4 * 1024] = 1e-40, 3e38
    a[2, :, :32], b[:32] = 2e-30, 3e-9
    a[0, :4], c[:] = 0, 1e-38
    assert_tiles_agree(sums(start), [a, b, c, rounds], (3, 1, 1))


@pytest.mark.parametrize("divisor", [1, 2])
def test_programs_that_read_other_columns_do_not_get_kept_panels(divisor):
    assert_tiles_agree(sums(divisor=divisor), sum_arguments(9), (3, 1, 1))


def test_panels_of_an_array_that_is_written_are_not_kept():
    assert_tiles_agree(sums(end=OVERWRITE), sum_arguments(9), (3, 1, 1))


# -- operands that something else computes or reads as well ---------------------------------------
def shared(after="", *, rows=32, side="left"):
    """Sum the rows of a block whose rounding is an operand; `after` says who else needs it."""
    w = Writer(x="ptr<fp32>", b="ptr<bf16>", total="ptr<fp32>", y="ptr<fp32>", z="ptr<fp32>")
    p = w("exp2", w.load("x", (rows, 64)))
    codes = w.convert(p, "bf16")
    w.store("total", w.reduce(p, 1, "fadd"))
    if after == "other codes":
        w.store("z", w.reduce(w.convert(w.convert(w("fneg", p), "bf16"), "fp32"), 1, "fmax"))
    if side == "left":
        left, right = codes, w.load("b", (64, 16))
    else:
        left = w.load("b", (16, 64))
        right = w("transpose", codes, to=codes.type.with_shape((64, rows)), order=(1, 0))
    acc = w.const(f"fp32[{left.type.shape[0]},{right.type.shape[1]}]", 0.0)
    w.store("y", w("dot", left, right, acc, to=acc.type, order="pairs"))
    if after == "itself":
        w.store("z", p)
    if after == "its codes":
        w.store("z", w.convert(codes, "fp32"))
    return w.done()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("after", ["", "itself", "its codes", "other codes"])
@pytest.mark.parametrize("power", [0, -100, -133])  # subnormals of bf16 among them, or nothing else
def test_a_block_may_be_summed_and_multiplied(after, side, power):
    rng = np.random.default_rng(30)
    x = (rng.integers(-8, 8, (32, 64)) + power).astype(np.float32)  # powers of two: exact
    b = rng.standard_normal((64, 16)).astype(BF16)
    out = [np.zeros(size, np.float32) for size in (32, 512, 2048)]
    assert_tiles_agree(shared(after, side=side), [x, b, *out])


AGAIN = """
kernel @again(%a: ptr<bf16>, %b: ptr<bf16>, %c: ptr<fp32>, %rounds: i32, %rows: i32) {
  %zero = const() {value = 0} : i32
  %one = const() {value = 1} : i32
  %size = const() {value = 1024} : i32
  %line = iota() {start = 0} : i32[32]
  %wide = const() {value = 32} : i32[32]
  %steps = mul(%line, %wide) : i32[32]
  %x = load_tile(%a, %steps, %line) {} : bf16[32,32]
  %all = broadcast(%rows) : i32[32]
  %is_row = cmp(%line, %all) {pred = "ult"} : i1[32]
  %acc = const() {value = 0.0} : fp32[32,32]
  %tiny = const() {value = 0.25} : fp32[32,32]
  %pb, %sum = for(%zero, %rounds, %one, %b, %acc) {
    (%i: i32, %qb: ptr<bf16>, %so_far: fp32[32,32]):
    %y = load_tile(%qb, %steps, %line, %is_row) {mask_dims = [0]} : bf16[32,32]
    %t = transpose(%y) {order = [1, 0]} : bf16[32,32]
    %d = dot(%x, %t, %acc) {order = "pairs"} : fp32[32,32]
    %less = fmul(%so_far, %tiny) : fp32[32,32]
    %codes = convert(%d) {how = "float"} : bf16[32,32]
    %e = dot(%codes, %x, %less) {order = "pairs"} : fp32[32,32]
    %rb = addptr(%qb, %size) : ptr<bf16>
    yield(%rb, %e)
  } : ptr<bf16>, fp32[32,32]
  store_tile(%sum, %c, %steps, %line) {}
  return()
}
"""


@pytest.mark.parametrize("rows", [32, 31, 0, -1])
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e-39])
def test_what_is_known_of_an_operand_holds_for_every_round(rows, size):
    """The left operand is that of every round, the sums shrink towards subnormals."""
    rng = np.random.default_rng(31)
    a = (rng.standard_normal(1024) * size).astype(BF16)
    b = rng.standard_normal(6 * 1024).astype(BF16)
    b[2048:] = (b[2048:].astype(np.float32) * 1e-6).astype(BF16)
    arguments = [a, b, np.zeros(1024, np.float32), 6, rows]
    assert_tiles_agree(parse_kernel(AGAIN), arguments)
