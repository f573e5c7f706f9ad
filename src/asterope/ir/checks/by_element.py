"""Checks of ops that run a named op or a block of scalars over the elements of blocks."""

from __future__ import annotations

from collections.abc import Sequence

from asterope.ir.checks.common import list_text, require, require_end, types_of
from asterope.ir.program import Op
from asterope.ir.types import FLOATS, INTEGERS, Type

__all__ = ["COMBINERS", "map_", "reduce", "scan"]

COMBINERS = {
    "add": INTEGERS, "and": INTEGERS, "or": INTEGERS, "xor": INTEGERS, "mul": INTEGERS,
    "mins": INTEGERS, "maxs": INTEGERS, "minu": INTEGERS, "maxu": INTEGERS,
    "fadd": FLOATS, "fmul": FLOATS, "fmin": FLOATS, "fmax": FLOATS,
    "fminimum": FLOATS, "fmaximum": FLOATS,
}  # fmt: skip


def _one_shape(op: Op) -> tuple[int, ...]:
    types = types_of(op)
    require(bool(types), "takes no block")
    shape = types[0].shape
    require(all(t.shape == shape for t in types), "takes blocks of different shapes")
    require(not any(t.is_ptr for t in types), "does not take addresses")
    return shape


def _combined(op: Op) -> int:
    """Check the axis and how elements are combined; return the axis."""
    shape, axis, combine = _one_shape(op), op.attrs.get("axis"), op.attrs.get("combine")
    require(isinstance(axis, int) and 0 <= axis < len(shape), f"has no axis {axis}")
    assert isinstance(axis, int)
    if op.blocks:
        require(combine is None, "has a combiner and a block")
        elements = [Type(t.elem) for t in types_of(op)]
        _block(op, elements * 2, elements)
        return axis
    require(combine in COMBINERS, f"has no combiner {combine!r}")
    require(len(op.operands) == 1, f"combines {len(op.operands)} blocks by {combine}")
    a = op.operands[0].type
    require(a.elem in COMBINERS[str(combine)], f"cannot combine {a} by {combine}")
    return axis


def _block(op: Op, args: Sequence[Type], results: Sequence[Type]) -> None:
    """Check the one block, which takes and yields scalars."""
    require(len(op.blocks) == 1, "does not have one block")
    found = [v.type for v in op.blocks[0].args]
    require(found == list(args), f"block takes {list_text(found)}, gets {list_text(args)}")
    require_end(op.blocks[0], "yield", results)


def reduce(op: Op) -> None:
    """One dimension goes, combined by a named combiner or a block."""
    axis = _combined(op)
    wanted = [t.with_shape(t.shape[:axis] + t.shape[axis + 1 :]) for t in types_of(op)]
    found = [r.type for r in op.results]
    require(
        found == wanted, f"gives {list_text(found)} for {list_text(wanted)} without axis {axis}"
    )


def scan(op: Op) -> None:
    """Totals up to each element along one dimension, by a named combiner or a block."""
    _combined(op)
    require(isinstance(op.attrs.get("reverse"), bool), "does not say whether in `reverse`")
    require([r.type for r in op.results] == types_of(op), "gives other types than it takes")


def map_(op: Op) -> None:
    """A block computes `pack` elements of every result from `pack` elements of every operand."""
    shape, pack = _one_shape(op), op.attrs.get("pack")
    results = [r.type for r in op.results]
    require(bool(results) and all(r.shape == shape for r in results), f"does not give {shape}")
    require(isinstance(pack, int) and pack > 0, f"has no number `pack`, but {pack!r}")
    assert isinstance(pack, int)
    count = op.operands[0].type.num_elements
    require(count % pack == 0, f"{count} elements are not taken {pack} at a time")
    args, given = (
        [Type(t.elem) for t in ts for _ in range(pack)] for ts in (types_of(op), results)
    )
    _block(op, args, given)
