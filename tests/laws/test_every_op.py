"""Law 1 op by op: an example of each op in `ir.OPS`, read by both readers on every level."""

from __future__ import annotations

import numpy as np
import pytest

from asterope.compiler import find_tiles, simplify
from asterope.ir import COMBINERS, FLOATS, INTEGERS, OPS, OPS_INTERPRETED, Type, verify
from asterope.native import available_isas
from by_element_examples import by_block, by_name, mapped, places
from ir_builder import assert_same_bits, differing, interpreted, launched
from isas import EACH_ISA
from kernel_vocabulary import (
    BINARY_FUNCTIONS,
    FLOAT_BINARY,
    FLOAT_UNARY,
    FUNCTIONS,
    INT_BINARY,
    INT_UNARY,
)
from op_case import Case, contents

OF_TIME = {"issue", "signalled"}  # only the time reading has them
ORDERS = ("relaxed", "acquire", "release", "acq_rel")
SHAPES = [(), (64,), (4, 16), (5, 3)]


def binary(name, elem, shape):
    case = Case()
    case.store(case.writer(name, case.load(elem, shape), case.load(elem, shape)))
    return case


def unary(name, elem, shape):
    case = Case()
    case.store(case.writer(name, case.load(elem, shape)))
    return case


def fma(name, elem, shape):
    case = Case()
    case.store(case.writer(name, *(case.load(elem, shape) for _ in range(3))))
    return case


def bessel(name, elem, shape):
    case = Case()
    w = case.writer
    order = w("and", case.load("i32", shape), w.const(Type("i32", shape), 7))
    x = case.load(elem, shape)
    case.store(w(name, order, x, to=x.type))
    return case


def directed(name, elem, shape):
    case = Case()
    for of, operands in (("fadd", 2), ("fsub", 2), ("fmul", 2), ("fdiv", 2), ("fma", 3)):
        values = [case.load(elem, shape) for _ in range(operands)]
        for rounding in ("toward_zero", "down", "up"):
            case.store(case.writer(name, *values, of=of, rounding=rounding))
    root = case.writer(name, case.load(elem, shape), of="sqrt", rounding="up")
    case.store(root)
    return case


def compare(name, elem, shape):
    case = Case()
    a, b = case.load(elem, shape), case.load(elem, shape)
    if name == "cmp":
        predicates = ("eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")
    else:
        predicates = ("oeq", "one", "olt", "oge", "ord", "ueq", "une", "ugt", "ule", "uno")
    for pred in predicates:
        case.store(case.writer.compare(pred, a, b))
    return case


def select(name, elem, shape):
    case = Case()
    a, b = case.load(elem, shape), case.load(elem, shape)
    for condition in (case.load("i1", shape), case.load("i1", ())):
        case.store(case.writer(name, condition, a, b, to=a.type))
    return case


def convert(name, elem, shape):
    case = Case()
    a = case.load(elem, shape)
    is_float, bits = elem in FLOATS, Type(elem).bits
    for target in (*INTEGERS, *FLOATS):
        if is_float and target in FLOATS:
            case.store(case.writer.convert(a, target))
            case.store(case.writer.convert(a, target, rounding="toward_zero"))
        elif is_float or target in FLOATS:
            for sign in ("signed", "unsigned"):
                how = f"{'to' if is_float else 'from'}_{sign}"
                case.store(case.writer.convert(a, target, how))
        elif Type(target).bits != bits:
            for how in ("sext", "zext") if Type(target).bits > bits else ("trunc",):
                case.store(case.writer.convert(a, target, how))
    return case


def bitcast(name, elem, shape):
    case = Case()
    a = case.load(elem, shape)
    if elem in FLOATS:  # the bits of a NaN are nobody's promise
        ordered = case.writer.compare("ord", a, a)
        a = case.writer("select", ordered, a, case.writer.const(a.type, 0.0), to=a.type)
    for target in (*INTEGERS, *FLOATS):
        if Type(target).bits == Type(elem).bits:
            case.store(case.writer(name, a, to=a.type.with_elem(target)))
    return case


def pointers(name, elem, shape):
    case = Case()
    w, index = case.writer, case.load("i8", shape)
    w.param("base", "ptr<i32>")
    case.arrays.append(np.arange(300, dtype=np.int32))
    base = w("addptr", w["base"], w.const("i32", 140))
    block = w("addptr", w.broadcast(base, shape) if shape else base, index)
    number = w("ptr_to_int", block, to=block.type.with_elem("i64"))
    back = w("int_to_ptr", number, to=block.type)
    case.store(w("cmp", back, block, to=block.type.with_elem("i1"), pred="eq"))
    case.store(w.load_at(back))
    return case


def shapes(name, elem, shape):
    case = Case()
    w = case.writer
    a, row = case.load(elem, (4, 8)), case.load(elem, (8,))
    scalar = case.load(elem, ())
    case.store(w.broadcast(scalar, (2, 4)))
    wide = w("expand", row, to=Type(elem, (1, 8)), axis=0)
    case.store(w.broadcast(wide, (4, 8)))
    case.store(w("transpose", a, to=Type(elem, (8, 4)), order=(1, 0)))
    case.store(w("reshape", a, to=Type(elem, (2, 16))))
    case.store(w("reshape", scalar, to=Type(elem, (1, 1))))
    case.store(w("reshape", w("reshape", scalar, to=Type(elem, (1,))), to=Type(elem)))
    case.store(w("reshape", scalar, to=Type(elem)))
    case.store(w("transpose", scalar, to=Type(elem), order=()))
    case.store(w("expand", scalar, to=Type(elem, (1,)), axis=0))
    case.store(w("join", a, a, to=Type(elem, (4, 8, 2))))
    pair = w("join", scalar, scalar, to=Type(elem, (2,)))
    for value in w.op("split", pair, to=[Type(elem)] * 2).results:
        case.store(value)
    for value in w.op(
        "split", w("reshape", a, to=Type(elem, (16, 2))), to=[f"{elem}[16]"] * 2
    ).results:
        case.store(value)
    case.store(w("add", w.iota(8, 3), w.const("i32[8]", -2)))
    return case


def reduce(name, elem, shape):
    case = Case()
    a = case.load(elem, (8, 32))
    names = ("fadd", "fmul", "fmin", "fmax", "fminimum", "fmaximum")
    if elem in INTEGERS:
        names = ("add", "mul", "and", "or", "xor", "mins", "maxs", "minu", "maxu")
    for combine in names:
        for axis in (0, 1):
            case.store(case.writer.reduce(a, axis, combine))
        flat = case.writer("reshape", a, to=Type(elem, (256,)))
        case.store(case.writer.reduce(flat, 0, combine))
    if elem == "i1":
        case.store(case.writer("popcount", a, to="i32"))
    return case


def dot(name, elem, shape):
    case = Case()
    total = {"i8": "i32", "fp64": "fp64"}.get(elem, "fp32")
    for *batch, m, k, n in ((4, 8, 16), (3, 33, 5), (1, 1, 1), (2, 3, 34, 8)):
        a, b = (case.load(elem, s) for s in ((*batch, m, k), (*batch, k, n)))
        acc = case.load(total, (*batch, m, n))
        for order in ("sequential", "pairs"):
            case.store(case.writer("dot", a, b, acc, to=acc.type, order=order))
    return case


def dot_scaled(name, elem, shape):
    case = Case()
    m, n, k = 4, 8, 64
    unused = {"e2m3": -64, "e3m2": -64}.get(elem, 0)  # upper bits that no code has
    codes = {"e2m1": "i8", "e2m3": "i8", "e3m2": "i8"}.get(elem, elem)
    depth = k // 2 if elem == "e2m1" else k
    a, b, acc = (
        case.load(codes, (m, depth)), case.load(codes, (depth, n)), case.load("fp32", (m, n)),
    )  # fmt: skip
    turned = case.load(codes, (depth, m))
    turned = case.writer("transpose", turned, to=a.type, order=(1, 0))
    if unused:
        a, b, turned = (
            case.writer("and", x, case.writer.const(x.type, ~unused)) for x in (a, b, turned)
        )
    for left in (a, turned):
        for scale, group in ((None, 0), ("i8", 32), ("e4m3", 16)):
            has = scale is not None
            scales = [case.load(scale, (rows, k // group)) for rows in (m, n)] if has else []
            attrs = {"a_format": elem, "b_format": elem, "a_scale": has, "b_scale": has}
            case.store(case.writer(name, left, b, acc, *scales, to=acc.type, **attrs))
    return case


def memory(name, elem, shape):
    case = Case()
    w, mask = case.writer, case.load("i1", shape)
    value, other = case.load(elem, shape), case.load(elem, shape)
    for filler in (None, other, w.const(Type(elem, shape), 1)):
        case.store(w.load("x1", shape, mask=mask, other=filler))
    w.param("target", f"ptr<{elem}>")
    case.arrays.append(contents(elem, int(np.prod(shape)), 9))
    w.store("target", value, mask=mask)
    return case


def atomics(name, elem, shape):
    """Each cell is met by several elements, then each by one; old values and cells are compared."""
    case = Case()
    w, mask = case.writer, case.load("i1", shape)
    value, expected = case.load(elem, shape), case.load(elem, shape)
    size = int(np.prod(shape))
    w.param("cells", f"ptr<{elem}>")
    case.arrays.append(contents(elem, size, 9))
    few = (
        w("rems", w.offsets(shape), w.const(Type("i32", shape), 3)) if shape else w.const("i32", 0)
    )
    base = w.broadcast(w["cells"], shape) if shape else w["cells"]
    combiners = [c for c, elements in COMBINERS.items() if elem in elements]
    for i, combine in enumerate((*combiners, "exchange")):
        order = ORDERS[i % len(ORDERS)]
        for turn, pointers in enumerate((w("addptr", base, few), w.pointers("cells", shape))):
            masks = (mask,) if (i + turn) % 2 else ()
            attrs = {"combine": combine, "memory_order": order, "mask": bool(masks)}
            case.store(w("atomic_rmw", pointers, value, *masks, to=value.type, **attrs))
    for i, order in enumerate(ORDERS):
        awaited = expected if i % 2 else w.load("cells", shape)
        operands = (w("addptr", base, few), awaited, value)
        case.store(w("atomic_cas", *operands, to=value.type, memory_order=order))
    return case


def control(name, elem, shape):
    case = Case()
    w = case.writer
    a, b = case.load(elem, shape), case.load(elem, shape)
    condition, one = case.load("i1", ()), w.const("i32", 1)
    add = "fadd" if a.type.is_float else "add"
    results = w.for_(0, 3, 1, [a, b], lambda i, x, y: [y, w(add, x, y)])
    results += w.while_(
        [w.const("i32", 0), a, b],
        lambda i, x, y: (w.compare("slt", i, w.const("i32", 2)), i, y, x),
        lambda i, x, y: [w("add", i, one), w(add, x, y), x],
    )
    results += w.if_(condition, lambda: [a, w(add, a, b)], lambda: [b, a])
    for axis in range(3):
        results += [w("program_id", to="i32", axis=axis), w("num_programs", to="i32", axis=axis)]
    for value in results:
        case.store(value)
    return case


def reports(name, elem, shape):
    """What is said is compared in tests/unit/host/test_host_reports.py."""
    case = Case()
    w, a = case.writer, case.load(elem, shape)
    flags = {"prefix": " a: ", "signed": (True,), "threads": 1}
    for hex_ in (False, True):
        w.op("print", a, hex=hex_, **flags)
    w.op("assert", w.const(Type("i1", shape), 1), message="holds")
    case.store(a)
    return case


MATRIX = ("fp32", "bf16", "fp16", "e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz", "fp64", "i8")
SCALED = ("e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "bf16", "fp16")
EVERY = (*INTEGERS, *FLOATS)
# What is built, from which ops, on which elements.
EXAMPLES = [
    *((name, binary, INTEGERS, SHAPES) for name in INT_BINARY),
    *((name, binary, FLOATS, SHAPES) for name in FLOAT_BINARY),
    *((name, unary, FLOATS, SHAPES) for name in (*FLOAT_UNARY, *FUNCTIONS)),
    *((name, unary, INTEGERS, SHAPES) for name in INT_UNARY),
    *((name, binary, FLOATS, SHAPES) for name in BINARY_FUNCTIONS),
    *((name, bessel, FLOATS, SHAPES) for name in ("jn", "yn")),
    ("directed", directed, ("fp32", "fp64"), SHAPES),
    ("fma", fma, FLOATS, SHAPES),
    ("cmp", compare, INTEGERS, SHAPES),
    ("fcmp", compare, FLOATS, SHAPES),
    ("select", select, EVERY, SHAPES),
    ("convert", convert, EVERY, SHAPES[1:2]),
    ("bitcast", bitcast, EVERY, SHAPES),
    ("addptr ptr_to_int int_to_ptr", pointers, ("i32",), SHAPES),
    ("const iota broadcast expand reshape transpose join split", shapes, EVERY, [()]),
    ("reduce popcount", reduce, EVERY, [()]),
    ("scan", by_name, EVERY, [(8, 16), (1, 40), (3, 5), (16, 1)]),
    ("reduce scan", by_block, EVERY, [(4, 32), (1, 32), (16, 2)]),
    ("map", mapped, EVERY, [(4, 8), (64,), (2, 1)]),
    ("exchange gather histogram", places, EVERY, [()]),
    ("dot", dot, MATRIX, [()]),
    ("dot_scaled", dot_scaled, SCALED, [()]),
    ("load store load_tile store_tile", memory, EVERY, SHAPES),
    ("atomic_rmw atomic_rmw_tile atomic_cas", atomics, EVERY[1:], SHAPES),
    ("for while if yield condition return program_id num_programs", control, EVERY, SHAPES),
    ("print assert", reports, EVERY, SHAPES),
]
NAMES = [names for names, *_ in EXAMPLES]


def test_every_op_of_values_is_interpreted():
    assert set(OPS) - OF_TIME == OPS_INTERPRETED - OF_TIME


def test_every_op_of_values_has_an_example_here():
    assert {name for names in NAMES for name in names.split()} == set(OPS) - OF_TIME


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize(("names", "build", "elements", "shapes_"), EXAMPLES, ids=NAMES)
def test_native_code_gives_the_interpreters_bits(names, build, elements, shapes_, isa):
    """Every op runs on every level, each time on another element and shape."""
    turn = NAMES.index(names) + available_isas().index(isa)
    check(names, build, elements[turn % len(elements)], shapes_[turn % len(shapes_)], isa)


@pytest.mark.slow
@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize(("names", "build", "elements", "shapes_"), EXAMPLES, ids=NAMES)
def test_every_op_runs_on_every_element_and_level(names, build, elements, shapes_, isa):
    for turn, elem in enumerate(elements, start=available_isas().index(isa)):
        check(names, build, elem, shapes_[turn % len(shapes_)], isa)


def check(names, build, elem, shape, isa):
    case = build(names, elem, shape)
    kernel = case.writer.done()
    where = f"{names} on {elem}{list(shape)}"
    if OPS.get(names) and OPS[names].cost == "function" and names != "sqrt":
        assert_close(kernel, case.arrays, isa, where)
        return
    try:
        assert_same_bits(kernel, case.arrays, isa=isa)
        if build in (shapes, memory, atomics, control):
            tiled = simplify(find_tiles(kernel))
            verify(tiled)
            assert_same_bits(tiled, case.arrays, isa=isa)
    except Exception as error:
        raise AssertionError(f"{where}: {error}") from error


def assert_close(kernel, arrays, isa, where):
    """Assert that functions are within two units in the last place of the interpreter's."""
    (*_, expected), (*_, got) = interpreted(kernel, arrays), launched(kernel, arrays, isa=isa)
    assert (np.isnan(got) == np.isnan(expected)).all(), where
    assert (differing(got, expected) <= (distance(got, expected) <= 2)).all(), where


def distance(got, expected):
    """Count the representable values between two arrays of one float format."""

    def place(x):
        bits = x.view(f"i{x.itemsize}").astype(np.int64)
        least = np.iinfo(f"i{x.itemsize}").min
        return np.where(bits < 0, least - bits, bits)

    return np.abs(place(got) - place(expected))
