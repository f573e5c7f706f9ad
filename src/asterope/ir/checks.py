"""What the verifier asks of each family of ops. Each check raises IRError with what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asterope.errors import IRError
from asterope.ir.program import Block, Op
from asterope.ir.types import FLOATS, INTEGERS, SEM, Ptr, Type

__all__ = ["COMBINERS", "DOT_FORMATS", "Check"]

Check = Callable[[Op], None]

COMBINERS = {
    "add": INTEGERS, "and": INTEGERS, "or": INTEGERS, "xor": INTEGERS, "mul": INTEGERS,
    "mins": INTEGERS, "maxs": INTEGERS, "minu": INTEGERS, "maxu": INTEGERS,
    "fadd": FLOATS, "fmul": FLOATS, "fmin": FLOATS, "fmax": FLOATS,
    "fminimum": FLOATS, "fmaximum": FLOATS,
}  # fmt: skip
DOT_FORMATS = ("e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "bf16", "fp16")
_INT_PREDICATES = ("eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")
_FLOAT_PREDICATES = (
    "oeq", "ogt", "oge", "olt", "ole", "one", "ord",
    "ueq", "ugt", "uge", "ult", "ule", "une", "uno",
)  # fmt: skip
_CONVERSIONS = {
    "sext": (INTEGERS, INTEGERS), "zext": (INTEGERS, INTEGERS), "trunc": (INTEGERS, INTEGERS),
    "float": (FLOATS, FLOATS),
    "from_signed": (INTEGERS, FLOATS), "from_unsigned": (INTEGERS, FLOATS),
    "to_signed": (FLOATS, INTEGERS), "to_unsigned": (FLOATS, INTEGERS),
}  # fmt: skip


def require(holds: bool, what: str) -> None:
    """Raise IRError unless the condition holds."""
    if not holds:
        raise IRError(what)


def _types(op: Op) -> list[Type]:
    return [v.type for v in op.operands]


def count(op: Op, operands: int, results: int = 1) -> None:
    """Check the number of operands and results."""
    require(len(op.operands) == operands, f"takes {operands} operands, has {len(op.operands)}")
    require(len(op.results) == results, f"gives {results} results, has {len(op.results)}")


def same(operands: int, elements: Sequence[str]) -> Check:
    """All operands and the result have one type with an element out of `elements`."""

    def check(op: Op) -> None:
        count(op, operands)
        t = op.result.type
        require(all(x == t for x in _types(op)), f"operands {_strs(op)} differ from result {t}")
        require(t.elem in elements, f"{t} is not one of {', '.join(elements)}")

    return check


def _strs(op: Op) -> str:
    return ", ".join(str(t) for t in _types(op))


def const(op: Op) -> None:
    """A constant holds one number, the same in every element."""
    count(op, 0)
    value, t = op.attrs.get("value"), op.result.type
    require(isinstance(value, (int, float)), "has no number `value`")
    require(t.is_float or isinstance(value, int), f"{t} cannot be {value}")


def compare(predicates: Sequence[str], elements: Sequence[str]) -> Check:
    """Two operands of one type compare into i1 of the same shape."""

    def check(op: Op) -> None:
        count(op, 2)
        a, b = _types(op)
        require(a == b, f"compares {a} with {b}")
        require(a.is_ptr or a.elem in elements, f"cannot compare {a}")
        require(op.result.type == a.with_elem("i1"), f"gives {op.result.type}, not i1")
        require(op.attrs.get("pred") in predicates, f"has no predicate {op.attrs.get('pred')!r}")

    return check


int_compare = compare(_INT_PREDICATES, INTEGERS)
float_compare = compare(_FLOAT_PREDICATES, FLOATS)


def select(op: Op) -> None:
    """An i1, scalar or of the result's shape, chooses between two of the result's type."""
    count(op, 3)
    c, a, b = _types(op)
    t = op.result.type
    require(a == t and b == t, f"chooses between {a} and {b} to give {t}")
    require(c in (t.with_elem("i1"), Type("i1")), f"chooses by {c}")


def convert(op: Op) -> None:
    """A conversion keeps the shape; `how` names it."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    how = op.attrs.get("how")
    require(how in _CONVERSIONS, f"has no conversion {how!r}")
    sources, targets = _CONVERSIONS[str(how)]
    require(a.shape == t.shape, f"changes the shape of {a} to {t}")
    require(a.elem in sources and t.elem in targets, f"cannot convert {a} to {t} by {how}")
    if how in ("sext", "zext"):
        require(t.bits > a.bits, f"{how} of {a} to {t} does not widen")
    require(how != "trunc" or t.bits < a.bits, f"trunc of {a} to {t} does not narrow")
    rounding = op.attrs.get("rounding", "nearest_even")
    require(rounding in ("nearest_even", "toward_zero"), f"has no rounding {rounding!r}")


def bitcast(op: Op) -> None:
    """The bits stay; element widths are equal."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    require(a.shape == t.shape and a.bits == t.bits, f"cannot reread {a} as {t}")


def iota(op: Op) -> None:
    """One dimension of i32: start, start + 1, ..."""
    count(op, 0)
    t = op.result.type
    require(t.elem == "i32" and len(t.shape) == 1, f"gives {t}, not i32[n]")
    require(isinstance(op.attrs.get("start"), int), "has no integer `start`")


def broadcast(op: Op) -> None:
    """A scalar, or sizes of 1, stretch to the result's shape."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    require(a.elem == t.elem, f"changes the element of {a} to {t}")
    fits = not a.shape or (
        len(a.shape) == len(t.shape)
        and all(x in (1, y) for x, y in zip(a.shape, t.shape, strict=True))
    )
    require(fits, f"cannot stretch {a} to {t}")


def expand(op: Op) -> None:
    """A dimension of size 1 appears at `axis`."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    axis = op.attrs.get("axis")
    require(isinstance(axis, int) and 0 <= axis <= len(a.shape), f"has no axis {axis}")
    assert isinstance(axis, int)
    shape = (*a.shape[:axis], 1, *a.shape[axis:])
    require(t == a.with_shape(shape), f"gives {t} for {a} at axis {axis}")


def reshape(op: Op) -> None:
    """Elements keep their row-major order."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    require(a.elem == t.elem and a.num_elements == t.num_elements, f"cannot reshape {a} to {t}")


def transpose(op: Op) -> None:
    """Dimension i of the result is dimension order[i] of the operand."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    order = op.attrs.get("order", ())
    is_order = isinstance(order, tuple) and sorted(order) == list(range(len(a.shape)))
    require(is_order, f"has no order {order}")
    require(t == a.with_shape(tuple(a.shape[i] for i in order)), f"gives {t} for {a} in {order}")


def join(op: Op) -> None:
    """Two blocks interleave in a new last dimension of size 2."""
    count(op, 2)
    a, b = _types(op)
    require(a == b and op.result.type == a.with_shape((*a.shape, 2)), f"cannot join {a} and {b}")


def split(op: Op) -> None:
    """The last dimension, of size 2, comes apart."""
    count(op, 1, 2)
    a = op.operands[0].type
    require(bool(a.shape) and a.shape[-1] == 2, f"cannot split {a}")
    require(all(r.type == a.with_shape(a.shape[:-1]) for r in op.results), "gives other types")


def reduce(op: Op) -> None:
    """One dimension goes, combined by a named combiner."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    axis, combine = op.attrs.get("axis"), op.attrs.get("combine")
    require(isinstance(axis, int) and 0 <= axis < len(a.shape), f"has no axis {axis}")
    require(combine in COMBINERS, f"has no combiner {combine!r}")
    require(a.elem in COMBINERS[str(combine)], f"cannot combine {a} by {combine}")
    assert isinstance(axis, int)
    shape = a.shape[:axis] + a.shape[axis + 1 :]
    require(t == a.with_shape(shape), f"gives {t} for {a} without axis {axis}")


def program_id(op: Op) -> None:
    """An i32 along one of three grid axes."""
    count(op, 0)
    require(op.attrs.get("axis") in (0, 1, 2), f"has no grid axis {op.attrs.get('axis')}")
    require(op.result.type == Type("i32"), "gives i32")


def addptr(op: Op) -> None:
    """Addresses move by a number of elements."""
    count(op, 2)
    p, o = _types(op)
    require(p.is_ptr and o.is_int and p.shape == o.shape, f"cannot add {o} to {p}")
    require(op.result.type == p, f"gives {op.result.type} for {p}")


def _access(op: Op, pointers: Type, value: Type, rest: list[Type]) -> None:
    require(pointers.is_ptr, f"{pointers} is not a pointer")
    require(value == pointers.with_elem(pointers.pointee), f"{value} does not fit {pointers}")
    expected = op.attrs.get("mask", False) + op.attrs.get("other", False)
    require(len(rest) == expected, "mask and other do not match its operands")
    if op.attrs.get("mask"):
        require(rest[0] == pointers.with_elem("i1"), f"mask {rest[0]} does not fit {pointers}")
    if op.attrs.get("other"):
        require(rest[-1] == value, f"other {rest[-1]} does not fit {value}")


def load(op: Op) -> None:
    """Elements from addresses; where the mask is off, `other` or zero."""
    require(len(op.operands) >= 1 and len(op.results) == 1, "takes pointers, gives a value")
    types = _types(op)
    _access(op, types[0], op.result.type, types[1:])


def store(op: Op) -> None:
    """Elements to addresses where the mask is on."""
    require(len(op.operands) >= 2 and not op.results, "takes pointers and a value")
    types = _types(op)
    _access(op, types[0], types[1], types[2:])


def _tile(op: Op, value: Type, operands: list[Type], other: bool) -> None:
    base, rest = operands[0], operands[1:]
    require(base.is_ptr and not base.shape, f"base {base} is not one address")
    require(value.shape != () and value.elem == base.pointee, f"{value} does not fit {base}")
    rank = len(value.shape)
    dims = op.attrs.get("mask_dims", ())
    are_dims = isinstance(dims, tuple) and all(d in range(rank) for d in dims)
    require(are_dims, f"has no dimensions {dims}")
    require(len(rest) == rank + len(dims) + other, "operands do not match mask_dims and other")
    for d, offset in enumerate(rest[:rank]):
        require(
            offset.is_int and offset.shape == (value.shape[d],),
            f"offset {offset} of dimension {d} does not fit {value}",
        )
    for d, mask in zip(dims, rest[rank : rank + len(dims)], strict=True):
        require(mask == Type("i1", (value.shape[d],)), f"mask {mask} of dimension {d} does not fit")
    if other:
        require(rest[-1] == Type(value.elem), f"other {rest[-1]} is not a scalar of {value}")


def load_tile(op: Op) -> None:
    """Elements at base + offset_0[i] + offset_1[j] + ..., where every mask_d holds."""
    require(len(op.operands) >= 2 and len(op.results) == 1, "takes a base and offsets")
    _tile(op, op.result.type, _types(op), bool(op.attrs.get("other")))


def store_tile(op: Op) -> None:
    """The first operand goes to base + offset_0[i] + ..., where every mask_d holds."""
    require(len(op.operands) >= 3 and not op.results, "takes a value, a base and offsets")
    types = _types(op)
    _tile(op, types[0], types[1:], other=False)


def dot(op: Op) -> None:
    """acc[M,N] + a[M,K] b[K,N], summed in a stated order."""
    count(op, 3)
    a, b, acc = _types(op)
    require(len(a.shape) == len(b.shape) == 2, f"multiplies {a} and {b}, not matrices")
    require(a.shape[1] == b.shape[0], f"{a} and {b} do not share K")
    require(acc.shape == (a.shape[0], b.shape[1]), f"accumulator {acc} is not [M,N]")
    require(op.result.type == acc, f"gives {op.result.type}, not {acc}")
    integers = a.elem == b.elem == "i8" and acc.elem == "i32"
    floats = a.is_float and b.is_float and acc.elem in ("fp32", "fp64")
    require(integers or floats, f"cannot multiply {a} and {b} into {acc}")
    require(op.attrs.get("order") in ("sequential", "pairs"), "has no accumulation `order`")


def dot_scaled(op: Op) -> None:
    """Acc + (a scaled by block) (b scaled by block); e2m1 is packed two a byte along K."""
    scales = [bool(op.attrs.get(f"{side}_scale")) for side in ("a", "b")]
    count(op, 3 + sum(scales))
    a, b, acc = _types(op)[:3]
    formats = [op.attrs.get(f"{side}_format") for side in ("a", "b")]
    require(all(f in DOT_FORMATS for f in formats), f"has no formats {formats}")
    require(len(a.shape) == len(b.shape) == 2, f"multiplies {a} and {b}, not matrices")
    for t, fmt in zip((a, b), formats, strict=True):
        codes = ("i8",) if fmt in ("e2m1", "e2m3", "e3m2") else ("i8", fmt)
        require(t.elem in (codes if fmt not in ("bf16", "fp16") else (fmt,)), f"{t} is no {fmt}")
    pack = [2 if f == "e2m1" else 1 for f in formats]
    depth = a.shape[1] * pack[0]
    require(depth == b.shape[0] * pack[1], f"{a} and {b} do not share K")
    require(acc == Type("fp32", (a.shape[0], b.shape[1])), f"accumulator {acc} is not fp32[M,N]")
    require(op.result.type == acc, f"gives {op.result.type}, not {acc}")
    rest = _types(op)[3:]
    rows = [n for n, has in zip((a.shape[0], b.shape[1]), scales, strict=True) if has]
    for scale, size in zip(rest, rows, strict=True):
        fits = len(scale.shape) == 2 and scale.shape[0] == size and depth % scale.shape[1] == 0
        require(fits, f"scale {scale} does not fit {size} rows of K = {depth}")
        require(scale.elem in ("i8", "e4m3"), f"scale {scale} is neither e8m0 (i8) nor e4m3")


def for_(op: Op) -> None:
    """A counter from lo to below hi by step, carrying values."""
    require(len(op.operands) >= 3 and len(op.blocks) == 1, "takes lo, hi, step and a body")
    lo, hi, step, *inits = _types(op)
    require(lo.elem in INTEGERS and not lo.shape and lo == hi == step, "counts in one integer type")
    args = [v.type for v in op.blocks[0].args]
    require(args == [lo, *inits], f"body takes {_list(args)}, gets {_list([lo, *inits])}")
    require([r.type for r in op.results] == inits, "results differ from the carried values")
    _ends(op.blocks[0], "yield", inits)


def while_(op: Op) -> None:
    """The first block decides and passes values on; the second computes the next ones."""
    require(len(op.blocks) == 2, "has two blocks")
    before, after = op.blocks
    inits = _types(op)
    results = [r.type for r in op.results]
    require([v.type for v in before.args] == inits, "first block takes the initial values")
    require([v.type for v in after.args] == results, "second block takes what is passed on")
    _ends(before, "condition", [Type("i1"), *results])
    _ends(after, "yield", inits)


def if_(op: Op) -> None:
    """One of two blocks runs."""
    count(op, 1, len(op.results))
    require(op.operands[0].type == Type("i1") and len(op.blocks) == 2, "takes an i1 and two blocks")
    for block in op.blocks:
        _ends(block, "yield", [r.type for r in op.results])


def _list(types: Sequence[Type]) -> str:
    return "(" + ", ".join(map(str, types)) + ")"


def _ends(block: Block, name: str, types: Sequence[Type]) -> None:
    require(bool(block.ops), f"block is empty, must end with {name}")
    last = block.terminator
    found = [v.type for v in last.operands]
    require(last.name == name, f"block ends with {last.name}, not {name}")
    require(found == list(types), f"{name} gives {_list(found)}, not {_list(types)}")


def terminator(op: Op) -> None:
    """Ends a block; what it gives is checked by the op around it."""
    require(not op.results, "has results")


def issue(op: Op) -> None:
    """A macro-instruction: numbers it needs, then the semaphores it waits for."""
    numbers = op.attrs.get("numbers", 0)
    types = _types(op)
    require(all(t.is_int and not t.shape for t in types[:numbers]), "numbers are scalar integers")
    require(all(t == SEM for t in types[numbers:]), "waits for semaphores")
    require([r.type for r in op.results] == [SEM], "signals one semaphore")
    require(isinstance(op.attrs.get("instruction"), int), "names no `instruction`")


def signalled(op: Op) -> None:
    """A semaphore that is always signalled."""
    count(op, 0)
    require(op.result.type == SEM, "gives a semaphore")


def popcount(op: Op) -> None:
    """How many elements of an i1 block are set, as an i32."""
    count(op, 1)
    require(op.operands[0].type.elem == "i1", "counts an i1 block")
    require(op.result.type == Type("i32"), "gives an i32")


def pointer_to_int(op: Op) -> None:
    """An address as an i64."""
    count(op, 1)
    a = op.operands[0].type
    require(a.is_ptr and op.result.type == a.with_elem("i64"), f"cannot turn {a} into an integer")


def int_to_pointer(op: Op) -> None:
    """An i64 as an address."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    require(a.elem == "i64" and isinstance(t.elem, Ptr) and a.shape == t.shape, f"{a} to {t}")
