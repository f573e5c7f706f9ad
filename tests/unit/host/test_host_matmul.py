from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from asterope.compiler import find_tiles, simplify
from asterope.host.microkernel import row_blocks
from asterope.ir import Type, dtype_of, parse_kernel, print_kernel
from asterope.native import available_isas
from ir_builder import Writer, assert_same_bits

ISA_NAMES = available_isas()


def tiled(kernel):
    return simplify(find_tiles(simplify(parse_kernel(print_kernel(kernel)))))


def matrix(rng, elem, shape):
    if elem in ("i8", "i32"):
        return rng.integers(-128, 128, shape).astype(dtype_of(Type(elem)))
    return rng.standard_normal(shape).astype(np.float32).astype(dtype_of(Type(elem)))


def product(elem, m, k, n, *, order="pairs", turn="", total=None):
    """A kernel y = c + a b; `turn` names operands that are read transposed."""
    total = total or {"i8": "i32", "fp64": "fp64"}.get(elem, "fp32")
    w = Writer(a=f"ptr<{elem}>", b=f"ptr<{elem}>", c=f"ptr<{total}>", y=f"ptr<{total}>")
    strides = {"a": [1, m] if "a" in turn else None, "b": [1, k] if "b" in turn else None}
    a, b = w.load("a", (m, k), strides=strides["a"]), w.load("b", (k, n), strides=strides["b"])
    acc = w.load("c", (m, n))
    w.store("y", w("dot", a, b, acc, to=acc.type, order=order))
    return w.done()


def operands(elem, m, k, n, seed=0):
    rng = np.random.default_rng(seed)
    total = {"i8": "i32", "fp64": "fp64"}.get(elem, "fp32")
    c = rng.standard_normal((m, n)).astype(dtype_of(Type(total)))
    return [matrix(rng, elem, (m, k)), matrix(rng, elem, (k, n)), c, np.zeros_like(c)]


RARE_SIZES = [(1, 1, 1), (16, 16, 16), (2, 33, 48), (1, 40, 20)]
SIZES = [
    (5, 7, 3), (17, 64, 1), (32, 31, 16),
    *(pytest.param(*size, marks=pytest.mark.slow) for size in RARE_SIZES),
]  # fmt: skip


@pytest.mark.parametrize("isa", ISA_NAMES)
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
@pytest.mark.parametrize("order", ["sequential", "pairs"])
def test_any_size_is_summed_in_the_stated_order(isa, m, k, n, order):
    for kernel in (product("fp32", m, k, n, order=order), product("bf16", m, k, n, order=order)):
        elem = kernel.body.args[0].type.pointee
        assert_same_bits(kernel, operands(elem, m, k, n), isa=isa)


RARE_INT8 = [(1, 1, 16), (16, 64, 32)]


@pytest.mark.parametrize("isa", ISA_NAMES)
@pytest.mark.parametrize("turn", ["", "ab"])
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(7, 33, 48), (3, 2, 5), *(pytest.param(*x, marks=pytest.mark.slow) for x in RARE_INT8)],
)
def test_int8_is_exact_and_wraps_in_any_size(isa, turn, m, k, n):
    a, b, c, y = operands("i8", m, k, n, seed=13)
    a[0], b[:, 0] = -128, -128
    c[0, 0] = 2**31 - 1
    assert_same_bits(product("i8", m, k, n, turn=turn), [a, b, c, y], isa=isa)


@pytest.mark.parametrize("turn", ["", "b"])
@pytest.mark.parametrize(
    "elem", ["fp32", "i8", *(pytest.param(e, marks=pytest.mark.slow) for e in ("bf16", "fp64"))]
)
def test_panels_are_packed_for_many_rows(turn, elem):
    kernel = product(elem, 37, 40, 48, turn=turn)
    assert_same_bits(kernel, operands(elem, 37, 40, 48, seed=14))


@pytest.mark.parametrize("turn", ["", "a", "b", "ab"])
@pytest.mark.parametrize(
    "elem", ["fp32", "i8", *(pytest.param(e, marks=pytest.mark.slow) for e in ("fp16", "fp64"))]
)
@pytest.mark.parametrize(
    ("m", "k", "n"), [(16, 32, 16), pytest.param(3, 5, 6, marks=pytest.mark.slow)]
)
def test_operands_may_lie_in_either_order(turn, elem, m, k, n):
    kernel = product(elem, m, k, n, turn=turn)
    for reading in (kernel, tiled(kernel)):
        assert_same_bits(reading, operands(elem, m, k, n))


def test_products_of_one_shape_with_two_accumulators_are_two_functions():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", z="ptr<fp64>")
    x = w.load("x", (16, 16))
    for name, total in (("y", "fp32"), ("z", "fp64")):
        acc = w.const(f"{total}[16,16]", 0.0)
        w.store(name, w("dot", x, x, acc, to=acc.type, order="sequential"))
    x = np.random.default_rng(1).standard_normal((16, 16)).astype(np.float32)
    assert_same_bits(w.done(), [x, np.zeros_like(x), np.zeros((16, 16))])


@pytest.mark.parametrize(
    ("left", "right", "total"),
    [("bf16", "fp16", "fp32"), ("e4m3", "e5m2", "fp32"), ("fp32", "bf16", "fp32"),
     ("fp32", "fp64", "fp64"), ("fp64", "fp32", "fp64"), ("fp64", "fp64", "fp32")],
)  # fmt: skip
def test_operands_may_differ_in_element(left, right, total):
    w = Writer(a=f"ptr<{left}>", b=f"ptr<{right}>", y=f"ptr<{total}>")
    acc = w.const(f"{total}[8,8]", 0.5)
    a, b = w.load("a", (8, 8)), w.load("b", (8, 8))
    w.store("y", w("dot", a, b, acc, to=acc.type, order="sequential"))
    rng = np.random.default_rng(2)
    out = np.zeros((8, 8), dtype_of(Type(total)))
    assert_same_bits(w.done(), [matrix(rng, left, (8, 8)), matrix(rng, right, (8, 8)), out])


def test_a_matrix_times_itself_plus_itself():
    w = Writer(x="ptr<fp32>")
    x = w.load("x", (16, 16))
    w.store("x", w("dot", x, x, x, to=x.type, order="pairs"))
    x = np.random.default_rng(3).standard_normal((16, 16)).astype(np.float32)
    assert_same_bits(w.done(), [x])


@pytest.mark.parametrize("rows", [1, 3, 4, 6])
def test_blocks_of_rows_are_as_few_and_as_equal_as_can_be(rows):
    for m in range(1, 40):
        parts = row_blocks(m, rows)
        starts = [r for start, stop, size in parts for r in range(start, stop, size)]
        sizes = [size for start, stop, size in parts for _ in range(start, stop, size)]
        assert starts == [sum(sizes[:i]) for i in range(len(sizes))]
        assert sum(sizes) == m
        assert len(sizes) == -(-m // rows)
        assert max(sizes) - min(sizes) <= 1


# -- batches --------------------------------------------------------------------------------------
@pytest.mark.parametrize("turn", ["", "a", "b", "ab"])
@pytest.mark.parametrize("elem", ["bf16", "i8", "fp64"])
def test_each_matrix_of_a_batch_is_multiplied(turn, elem):
    batch, m, k, n = 3, 5, 33, 6
    kind = {"i8": "i32", "fp64": "fp64"}.get(elem, "fp32")
    w = Writer(a=f"ptr<{elem}>", b=f"ptr<{elem}>", c=f"ptr<{kind}>", y=f"ptr<{kind}>")
    values = []
    for name, rows, columns in (("a", m, k), ("b", k, n)):
        strides = [rows * columns, *((1, rows) if name in turn else (columns, 1))]
        values.append(w.load(name, (batch, rows, columns), strides=strides))
    acc = w.load("c", (batch, m, n))
    w.store("y", w("dot", *values, acc, to=acc.type, order="pairs"))
    rng = np.random.default_rng(12)
    shapes = (batch, m, k), (batch, k, n), (batch, m, n)
    arrays = [matrix(rng, e, s) for e, s in zip((elem, elem, kind), shapes, strict=True)]
    kernel = w.done()
    for reading in (kernel, tiled(kernel)):
        assert_same_bits(reading, [*arrays, np.zeros_like(arrays[2])])


@pytest.mark.parametrize("formats", [("e4m3", "e2m1"), ("e2m1", "e5m2")])
def test_each_matrix_of_a_scaled_batch_is_multiplied(formats):
    batch, m, k, n = 2, 4, 64, 8
    kinds = [FORMATS[f] for f in formats]
    w = Writer(a=f"ptr<{kinds[0]}>", b=f"ptr<{kinds[1]}>", s="ptr<i8>", y="ptr<fp32>")
    depths = [k // 2 if f == "e2m1" else k for f in formats]
    a, b = w.load("a", (batch, m, depths[0])), w.load("b", (batch, depths[1], n))
    scales = [w.load("s", (batch, rows, 2), start=16 * i) for i, rows in enumerate((m, n))]
    acc = w.const(Type("fp32", (batch, m, n)), 1.0)
    attrs = {"a_format": formats[0], "b_format": formats[1], "a_scale": True, "b_scale": True}
    w.store("y", w("dot_scaled", a, b, acc, *scales, to=acc.type, **attrs))
    arrays = [codes(kind, 1024, seed) for seed, kind in enumerate(kinds)]
    y = np.zeros((batch, m, n), np.float32)
    assert_same_bits(w.done(), [*arrays, scale_codes("i8", 48, 2), y])


# -- scaled ---------------------------------------------------------------------------------------
FORMATS = {"e4m3": "e4m3", "e5m2": "e5m2", "e2m1": "i8", "bf16": "bf16", "fp16": "fp16"}


def scaled(a_format, b_format, *, layout="plain", scale="i8", group=32, m=8, n=16, k=64):
    depths = [k // 2 if f == "e2m1" else k for f in (a_format, b_format)]
    kinds = [FORMATS[f] for f in (a_format, b_format)]
    w = Writer(a=f"ptr<{kinds[0]}>", b=f"ptr<{kinds[1]}>", s=f"ptr<{scale}>", y="ptr<fp32>")
    shapes = [(m, depths[0]), (depths[1], n)]
    values = [operand(w, name, shape, layout) for name, shape in zip("ab", shapes, strict=True)]
    groups = k // group
    places = ((m, 0), (n, m * groups))
    scales = [w.load("s", (rows, groups), start=start) for rows, start in places]
    acc = w.const(Type("fp32", (m, n)), 0.0)
    attrs = {"a_format": a_format, "b_format": b_format, "a_scale": True, "b_scale": True}
    w.store("y", w("dot_scaled", *values, acc, *scales, to=acc.type, **attrs))
    return w.done()


def operand(w, name, shape, layout):
    """Load a matrix as it lies, turned on the way, turned afterwards, or as half of a pair."""
    if layout == "columns":
        return w.load(name, shape, strides=[1, shape[0]])
    if layout == "transposed":
        other = w.load(name, shape[::-1])
        w("fneg" if other.type.is_float else "iabs", other)  # a second use: it gets a buffer
        return w("transpose", other, to=other.type.with_shape(shape), order=(1, 0))
    if layout == "half":
        both = w.load(name, (*shape, 2))
        to = both.type.with_shape(shape)
        return w.op("split", both, to=[to, to]).results[1]
    return w.load(name, shape)


def codes(elem, count, seed):
    rng = np.random.default_rng(seed)
    if elem == "i8":
        return rng.integers(-128, 128, count, dtype=np.int8)
    return (rng.standard_normal(count) * 4).astype(np.float32).astype(dtype_of(Type(elem)))


def scale_codes(scale, count, seed):
    rng = np.random.default_rng(seed)
    if scale == "i8":
        return rng.integers(120, 134, count, dtype=np.uint8).view(np.int8)
    return rng.uniform(0.25, 4, count).astype(np.float32).astype(ml_dtypes.float8_e4m3fn)


def scaled_arguments(kernel, *, seed=0):
    a, b, s = (v.type.pointee for v in kernel.body.args[:3])
    return [
        codes(a, 2048, seed), codes(b, 4096, seed + 1), scale_codes(s, 1024, seed + 2),
        np.zeros((8, 16), np.float32),
    ]  # fmt: skip


@pytest.mark.parametrize("layout", ["plain", "columns", "transposed", "half"])
@pytest.mark.parametrize("formats", [("e4m3", "e5m2"), ("e2m1", "e2m1"), ("bf16", "e2m1")])
def test_scaled_operands_may_lie_in_any_order(layout, formats):
    kernel = scaled(*formats, layout=layout)
    for reading in (kernel, tiled(kernel)):
        assert_same_bits(reading, scaled_arguments(kernel))


@pytest.mark.parametrize("scale", ["i8", "e4m3"])
@pytest.mark.parametrize("group", [64, 32, 16, 8, 2])
def test_scales_hold_for_groups_along_k(scale, group):
    kernel = scaled("e2m1", "e2m1", scale=scale, group=group)
    assert_same_bits(kernel, scaled_arguments(kernel, seed=3))


def test_scales_of_every_exponent_and_nan():
    kernel = scaled("e4m3", "e4m3")
    arguments = scaled_arguments(kernel, seed=4)
    arguments[2] = np.arange(1024).astype(np.uint8).view(np.int8)[::-1].copy()
    assert_same_bits(kernel, arguments)


def test_a_scale_group_need_not_be_a_power_of_two():
    w = Writer(a="ptr<e4m3>", s="ptr<i8>", y="ptr<fp32>")
    a, b = w.load("a", (4, 48)), w.load("a", (48, 4))
    acc = w.const("fp32[4,4]", 0.0)
    attrs = {"a_format": "e4m3", "b_format": "e4m3", "a_scale": True, "b_scale": False}
    scale = w.load("s", (4, 2))
    w.store("y", w("dot_scaled", a, b, acc, scale, to=acc.type, **attrs))
    kernel = w.done()
    arguments = [codes("e4m3", 192, 5), scale_codes("i8", 8, 6), np.zeros((4, 4), np.float32)]
    assert_same_bits(kernel, arguments)


# -- operands where they lie ----------------------------------------------------------------------
MASKED = """
kernel @masked(%a: ptr<{elem}>, %b: ptr<{elem}>, %y: ptr<fp32>, %n: i32) {{
  %line = iota() {{start = 0}} : i32[32]
  %pitch = const() {{value = {pitch}}} : i32[32]
  %rows = mul(%line, %pitch) : i32[32]
  %ends = broadcast(%n) : i32[32]
  %on = cmp(%line, %ends) {{pred = "slt"}} : i1[32]
  %x = load_tile(%a, %rows, %line, %on) {{mask_dims = [0]}} : {elem}[32,32]
  %z = load_tile(%b, %line, %rows, %on) {{mask_dims = [1]}} : {elem}[32,32]
  %acc = const() {{value = 0.0}} : fp32[32,32]
  %d = dot(%x, %z, %acc) {{order = "{order}"}} : fp32[32,32]
  %wide = const() {{value = 32}} : i32[32]
  %y_rows = mul(%line, %wide) : i32[32]
  store_tile(%d, %y, %y_rows, %line) {{}}
  return()
}}
"""


@pytest.mark.parametrize("pitch", [32, 33])
@pytest.mark.parametrize(("elem", "order"), [("fp32", "sequential"), ("bf16", "pairs")])
def test_operands_in_memory_are_read_there_unless_a_mask_is_off(elem, order, pitch):
    kernel = parse_kernel(MASKED.format(elem=elem, order=order, pitch=pitch))
    rng = np.random.default_rng(21)
    a, b = matrix(rng, elem, 33 * 33), matrix(rng, elem, 33 * 33)
    for n in (-1, 0, 9, 32, 100):
        for isa in ISA_NAMES:
            assert_same_bits(kernel, [a, b, np.ones((32, 32), np.float32), n], isa=isa)


@pytest.mark.parametrize("is_read_again", [False, True])
def test_a_block_is_kept_over_what_it_comes_from_only_where_that_is_done_with(is_read_again):
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", z="ptr<fp32>")
    x = w.load("x", (16, 16))
    product = w("dot", x, x, w.const("fp32[16,16]", 0.0), to=x.type, order="sequential")
    shared = w("fdiv", product, w.const("fp32[16,16]", 3.0))
    total = w.reduce(shared, 1, "fadd")
    w.store("y", w("fdiv", shared, w.along(total, 0, (16, 16))))
    w.store("z", product if is_read_again else shared)
    x = np.random.default_rng(22).standard_normal((16, 16)).astype(np.float32) / 4
    assert_same_bits(w.done(), [x, np.zeros_like(x), np.zeros_like(x)])
