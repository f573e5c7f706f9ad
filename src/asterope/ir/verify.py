"""The verifier: run before and after every pass."""

from __future__ import annotations

from asterope.errors import IRError
from asterope.ir.ops import OPS
from asterope.ir.program import Block, Kernel, Op, Value

__all__ = ["verify"]


def verify(kernel: Kernel) -> None:
    """Check that every op is declared, well-typed, and uses only values defined before it.

    Raises: IRError naming the kernel, the op and its source line.
    """
    if len(kernel.params) != len(kernel.body.args):
        raise IRError("parameters and body arguments differ in number", where=kernel.name)
    names = [p.name for p in kernel.params]
    for name in names:
        if names.count(name) > 1:
            raise IRError(f"two parameters are called {name}", where=kernel.name)
    if not kernel.body.ops or kernel.body.terminator.name != "return":
        raise IRError("body does not end with return", where=kernel.name)
    _verify_block(kernel, kernel.body, set())


def _verify_block(kernel: Kernel, block: Block, outer: set[Value]) -> None:
    visible = outer | set(block.args)
    for index, op in enumerate(block.ops):
        try:
            _verify_op(op, visible, is_last=index == len(block.ops) - 1)
        except IRError as error:
            if error.where:
                raise
            where = f"{kernel.name}: {op.name}" + (f" at {op.loc}" if op.loc else "")
            raise IRError(error.what, where=where) from None
        for inner in op.blocks:
            _verify_block(kernel, inner, visible)
        visible.update(op.results)


def _verify_op(op: Op, visible: set[Value], *, is_last: bool) -> None:
    spec = OPS.get(op.name)
    if spec is None:
        raise IRError(f"there is no op {op.name!r}")
    if any(v not in visible for v in op.operands):
        raise IRError("uses a value before it is defined or outside its block")
    if any(r.op is not op for r in op.results):
        raise IRError("does not own its results")
    ends = op.name in ("yield", "condition", "return")
    if ends != is_last:
        raise IRError("ends its block early" if ends else "is last but no terminator")
    spec.check(op)
