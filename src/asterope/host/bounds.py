"""Masks as loop bounds: where a mask is on from the start, and from where on it is off.

A compare of evenly spaced numbers with a scalar, `offsets < n`, holds up to some element, and so
does an unsigned one from zero on. A loop over chunks runs without that mask up to there, with it
over the one chunk in between, and knows that nothing is on in the rest. What cannot be bounded
stays a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asterope.host.evaluate import constant_value
from asterope.ir import Op, Value
from asterope.native import BITS, Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["Reach", "no_wrap", "reach_of", "spacing"]

_MIRRORED = {
    "slt": "sgt", "sle": "sge", "sgt": "slt", "sge": "sle",
    "ult": "ugt", "ule": "uge", "ugt": "ult", "uge": "ule",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reach:
    """All elements before `full` are on, none from `edge` on; either may lie outside the block."""

    full: Val
    edge: Val

    def narrowed(self, other: Reach) -> Reach:
        """Return the reach of both masks together."""
        return Reach(self.full.minimum("smin", other.full), self.edge.minimum("smin", other.edge))


@dataclass(frozen=True, slots=True)
class _Line:
    """Element i is first + i * step, wrapping; unless `valid`, only if no narrower sum wraps."""

    first: Val
    step: int
    valid: Val | None = None


def reach_of(low: Lowering, mask: Value) -> Reach | None:
    """Return how far a mask along one dimension is on, None if that is not known."""
    op, (size,) = mask.op, mask.type.shape
    if op is None:
        return None
    if op.name == "and":
        left, right = (reach_of(low, v) for v in op.operands)
        if left is not None and right is not None:
            return left.narrowed(right)
        known = left or right
        return known and Reach(low.fn.const("i64", 0), known.edge)
    if op.name == "broadcast":
        on = low.env.get(op.operands[0])
        return _uniform(on, size) if isinstance(on, Val) and not on.lanes else None
    if op.name == "const":
        return _uniform(constant_value(low, op), size)
    return _compare(low, op, size) if op.name == "cmp" else None


def spacing(low: Lowering, vector: Value) -> int | None:
    """Return the distance of a vector's elements where they are evenly spaced, as far as known."""
    line = _line(low, vector, vector.type.shape[0])
    return line.step if line else None


def no_wrap(low: Lowering, vector: Value, size: int) -> Val | None:
    """Return whether evenly spaced elements really rise, None if they do not or are not."""
    line = _line(low, vector, size)
    return _does_not_wrap(line, size) if line and line.step > 0 else None


def _uniform(on: Val, size: int) -> Reach:
    count = on.where(size, 0, "i64")
    return Reach(count, count)


def _compare(low: Lowering, op: Op, size: int) -> Reach | None:
    left, right = (_line(low, v, size) for v in op.operands)
    pred = str(op.attrs["pred"])
    if left is None or right is None or pred not in _MIRRORED:
        return None
    if not left.step:
        left, right, pred = right, left, _MIRRORED[pred]
    if right.step or left.step < 0:
        return None
    if not left.step:
        return _uniform(left.first.cmp(_MIRRORED[_MIRRORED[pred]], right.first), size)
    valid = _does_not_wrap(left, size)
    if valid is None:
        return None
    if right.valid is not None:
        valid = valid & right.valid
    if pred[0] == "s":
        return _signed(low, left, right.first, pred, valid, size)
    if pred not in ("ult", "ule"):
        return None
    # Below a number that is not negative unsigned is from zero on and below it.
    reach = _signed(low, left, right.first, f"s{pred[1:]}", valid & right.first.ge(0), size)
    return Reach(left.first.ge(0).where(reach.full, 0), reach.edge)


def _signed(
    low: Lowering, line: _Line, bound: Val, pred: str, valid: Val, size: int
) -> Reach:  # fmt: skip
    """Compare a rising line with a number; nothing is known where it is not `valid`."""
    ahead = _distance(line.first, bound)
    if pred in ("sgt", "sge"):
        starts_on = (ahead.lt(0) if pred == "sgt" else ahead.le(0)) & valid
        return Reach(starts_on.where(size, 0, "i64"), low.fn.const("i64", size))
    if pred == "sle":
        ahead = low.fn.intrinsic("sadd.sat", ahead, ahead.like(1))
    if line.step > 1:
        ahead = (ahead.minimum("smax", 0).minimum("smin", size * line.step) + line.step - 1).op(
            "udiv", line.step
        )
    return Reach(valid.where(ahead, 0), valid.where(ahead, size))


def _distance(a: Val, b: Val) -> Val:
    if BITS[a.kind] < BITS["i64"]:
        return b.sext("i64") - a.sext("i64")
    return a.fn.intrinsic("ssub.sat", b, a)


def _does_not_wrap(line: _Line, size: int) -> Val | None:
    """Whether the elements of a rising line really rise, None if they never can."""
    span = (size - 1) * line.step
    if span >> (BITS[line.first.kind] - 1):
        return None
    rises = (line.first + span).ge(line.first)
    return rises if line.valid is None else rises & line.valid


def _line(low: Lowering, vector: Value, size: int) -> _Line | None:
    """Write a vector as evenly spaced numbers, as far as its ops show it."""
    op = vector.op
    if op is None or not vector.type.is_int or vector.type.elem == "i1":
        return None
    if op.name == "const":
        return _Line(constant_value(low, op), 0)
    if op.name == "iota":
        return _Line(low.fn.const(str(vector.type.elem), op.attrs["start"]), 1)
    if op.name == "broadcast":
        found = low.env.get(op.operands[0])
        return _Line(found, 0) if isinstance(found, Val) and not found.lanes else None
    if op.name == "convert" and op.attrs["how"] == "sext":
        return _widened(low, op, size)
    if op.name in ("add", "sub", "mul"):
        left, right = (_line(low, v, size) for v in op.operands)
        return _combined(op.name, left, right) if left and right else None
    return None


def _widened(low: Lowering, op: Op, size: int) -> _Line | None:
    inner = _line(low, op.operands[0], size)
    if inner is None or inner.step < 0:
        return None
    valid = _does_not_wrap(inner, size) if inner.step else inner.valid
    if inner.step and valid is None:
        return None
    return _Line(inner.first.sext(str(op.result.type.elem)), inner.step, valid)


def _combined(name: str, a: _Line, b: _Line) -> _Line | None:
    valid = a.valid if b.valid is None else b.valid if a.valid is None else a.valid & b.valid
    if name == "add":
        return _Line(a.first + b.first, a.step + b.step, valid)
    if name == "sub":
        return _Line(a.first - b.first, a.step - b.step, valid)
    if not a.step and not b.step:
        return _Line(a.first * b.first, 0, valid)
    many, factor = (a, b) if a.step else (b, a)
    number = factor.first.ref
    if factor.step or not number.lstrip("-").isdigit():
        return None
    return _Line(many.first * factor.first, many.step * int(number), valid)
