"""Checks of ops that work element by element."""

from __future__ import annotations

from collections.abc import Sequence

from asterope.ir.checks.common import Check, count, require, types_of, types_text
from asterope.ir.program import Op
from asterope.ir.types import FLOATS, INTEGERS, Ptr, Type

__all__ = [
    "DIRECTED",
    "bessel",
    "bitcast",
    "compare",
    "convert",
    "directed",
    "float_compare",
    "int_compare",
    "int_to_pointer",
    "pointer_to_int",
    "same",
    "select",
]


def same(operands: int, elements: Sequence[str]) -> Check:
    """All operands and the result have one type with an element out of `elements`."""

    def check(op: Op) -> None:
        count(op, operands)
        t = op.result.type
        require(
            all(x == t for x in types_of(op)), f"operands {types_text(op)} differ from result {t}"
        )
        require(t.elem in elements, f"{t} is not one of {', '.join(elements)}")

    return check


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


def compare(predicates: Sequence[str], elements: Sequence[str]) -> Check:
    """Two operands of one type compare into i1 of the same shape."""

    def check(op: Op) -> None:
        count(op, 2)
        a, b = types_of(op)
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
    c, a, b = types_of(op)
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


DIRECTED = {"fadd": 2, "fsub": 2, "fmul": 2, "fdiv": 2, "sqrt": 1, "fma": 3}


def directed(op: Op) -> None:
    """An operation of fp32 or fp64 that is not rounded to nearest."""
    of, rounding = op.attrs.get("of"), op.attrs.get("rounding")
    require(of in DIRECTED, f"has no operation {of!r}")
    require(rounding in ("toward_zero", "down", "up"), f"has no rounding {rounding!r}")
    same(DIRECTED[str(of)], ("fp32", "fp64"))(op)


def bessel(op: Op) -> None:
    """An i32 order and a float of the result's type."""
    count(op, 2)
    order, x = types_of(op)
    t = op.result.type
    require(x == t and t.is_float, f"of {x} gives {t}")
    require(order == t.with_elem("i32"), f"of order {order} at {x}")


def bitcast(op: Op) -> None:
    """The bits stay; element widths are equal."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    require(a.shape == t.shape and a.bits == t.bits, f"cannot reread {a} as {t}")


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
