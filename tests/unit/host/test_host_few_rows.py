"""Products of few rows read weights where they lie, and leave the bits of the interpreter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope.compiler import find_tiles, simplify
from asterope.host import HostKernel
from asterope.host.executable import write_llvm
from asterope.host.row_product import most_rows
from asterope.ir import Type, dtype_of, parse_kernel, print_kernel
from asterope.native import ISAS, available_isas
from ir_builder import Writer, describe, differing, extents_of, interpreted

KINDS = {"e4m3": "e4m3", "e5m2": "e5m2", "e2m1": "i8", "bf16": "bf16", "fp16": "fp16"}
LEVELS = [ISAS[name] for name in available_isas()]
LEVELS += [
    dataclasses.replace(isa, name=f"{isa.name} without byte tables", has_byte_tables=False)
    for isa in LEVELS
    if isa.has_byte_tables
]
LEVELS.append(
    dataclasses.replace(LEVELS[0], name="amx-emulated", has_tiles=True, emulates_products=True)
)
M, N, K = (
    st.sampled_from(x) for x in ([1, 2, 3, 4, 7, 8, 16], [16, 32, 48], [32, 64, 96, 128, 256])
)


def tile(w, name, rows, depth, stride, live):
    """Load [rows, depth] of rows that lie `stride` apart; below `live` elements of each are on."""
    below = w.compare("slt", w.iota(depth), w.broadcast(live, (depth,)))
    mask = w.along(below, 1, (rows, depth))
    return w.load(name, (rows, depth), strides=[stride, 1], mask=mask)


def turned_tile(w, name, rows, depth, stride, live, *, on_the_way):
    """Load the same as [depth, rows]: turned afterwards, or by how it is addressed."""
    if on_the_way:
        value = tile(w, name, rows, depth, stride, live)
        return w("transpose", value, to=value.type.with_shape((depth, rows)), order=(1, 0))
    below = w.compare("slt", w.iota(depth), w.broadcast(live, (depth,)))
    mask = w.along(below, 0, (depth, rows))
    return w.load(name, (depth, rows), strides=[1, stride], mask=mask)


def product(m, n, k, *, fmt, scale, group, left, gap, is_zero, on_the_way):
    """y = c + x w^T, w's codes [n, k] as layers have them, through dot or dot_scaled."""
    per = 2 if fmt == "e2m1" else 1
    names = {"x": left, "w": KINDS[fmt], "s": scale or "i8", "c": "fp32", "y": "fp32"}
    w = Writer(**{x: f"ptr<{kind}>" for x, kind in names.items()}, live="i32", live_scales="i32")
    x = w.load("x", (m, k))
    place = "w", n, k // per, k // per + gap, w["live"]
    weight = turned_tile(w, *place, on_the_way=on_the_way)
    acc = w.const(Type("fp32", (m, n)), 0.0) if is_zero else w.load("c", (m, n))
    if scale:
        scales = tile(w, "s", n, k // group, k // group + gap, w["live_scales"])
        attrs = {"a_format": left, "b_format": fmt, "a_scale": False, "b_scale": True}
        y = w("dot_scaled", x, weight, acc, scales, to=acc.type, **attrs)
    else:
        if Type(left).bits > weight.type.bits:
            weight = w.convert(weight, left)
        y = w("dot", x, weight, acc, to=acc.type, order="pairs")
    w.store("y", y)
    return simplify(find_tiles(simplify(parse_kernel(print_kernel(w.done())))))


def draw_product(data):
    fmt = data.draw(st.sampled_from(sorted(KINDS)), label="format")
    scale = data.draw(st.sampled_from(["i8", "e4m3"] if fmt == "e2m1" else ["", "i8"]))
    left = data.draw(st.sampled_from(["bf16", "e4m3"] if fmt != "fp16" else ["fp16"]), label="x")
    if not scale and Type(left).bits < Type(KINDS[fmt]).bits:
        left = "bf16"
    m, n, k = (data.draw(x, label="size") for x in (M, N, K))
    k = max(k, 64) if scale else k  # of one scale a row, the IR makes a vector
    return m, n, k, {
        "fmt": fmt, "scale": scale, "left": left, "gap": data.draw(st.sampled_from([0, 5])),
        "group": data.draw(st.sampled_from([16, 32])), "is_zero": data.draw(st.booleans()),
        "on_the_way": data.draw(st.booleans()),
    }  # fmt: skip


def draw_arguments(data, kernel, m, n, k, form):
    """Draw any codes, NaN and infinities too, and how many of K are on."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30), label="seed"))
    arrays = []
    for value in kernel.body.args[:5]:
        dtype = np.dtype(dtype_of(Type(value.type.pointee)))
        codes = rng.integers(0, 256, (n * (k + 5) + m * k) * dtype.itemsize, dtype=np.uint8)
        arrays.append(codes.view(dtype))
    if data.draw(st.booleans(), label="usual scales") and form["scale"] == "i8":
        arrays[2] = rng.integers(80, 175, arrays[2].size).astype(np.uint8).view(np.int8)
        if data.draw(st.booleans(), label="inside the limits"):
            arrays[2] = np.clip(arrays[2].view(np.uint8), 87, 167).view(np.int8)
    # On both sides of where scaling sums and scaling what is summed become the same.
    size = data.draw(st.sampled_from([0, 0, -75, -57, 68, 80]), label="log2 of x")
    x = np.ldexp(rng.standard_normal(m * k), size).astype(np.float32)
    x[-1] = data.draw(st.sampled_from([1.0, 1.0, -np.inf, 1e-30]), label="last of x")
    with np.errstate(over="ignore"):
        arrays[0] = x.astype(arrays[0].dtype)
    arrays[3] = rng.choice(np.float32([-0.0, 1.5, -1e-39, 0.0]), m * n)
    arrays[4] = np.zeros(m * n, np.float32)
    live = data.draw(st.sampled_from([k, k, k // 2, k - 32, 7, 0]), label="live")
    return [*arrays, live // (2 if form["fmt"] == "e2m1" else 1), live // form["group"]]


def launched(kernel, arguments, isa):
    copies = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    arrays = [a for a in copies if isinstance(a, np.ndarray)]
    raw = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in copies]
    HostKernel(kernel, isa).launch((1, 1, 1), raw, extents_of(arrays))
    return arrays[4]


def check(data):
    m, n, k, form = draw_product(data)
    kernel = product(m, n, k, **form)
    arguments = draw_arguments(data, kernel, m, n, k, form)
    isa = data.draw(st.sampled_from(LEVELS), label="isa")
    assert ("@rows_" in write_llvm(kernel, isa, disjoint=True)) == (m <= most_rows(isa))
    with np.errstate(all="ignore"):
        expected = interpreted(kernel, arguments)[4]
    got = launched(kernel, arguments, isa)
    differ = differing(got, expected)
    assert not differ.any(), describe(got, expected, differ)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_weights_read_where_they_lie_leave_the_bits_of_the_interpreter(data):
    check(data)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_weights_read_where_they_lie_leave_the_bits_of_the_interpreter_in_hundreds(data):
    check(data)
