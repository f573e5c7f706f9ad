"""Use directly what loops and branches only hand on, and what multiplying by one leaves as it is.

A tensor descriptor or block pointer that a loop carries is several values, most of which never
change. Known to be constant, a stride of 1 shows that elements lie side by side.
"""

from __future__ import annotations

from asterope.ir import Block, Kernel, Op, Value

__all__ = ["forward"]


def forward(kernel: Kernel) -> Kernel:
    """Replace values that are always another; changes the kernel in place and returns it."""
    same: dict[Value, Value] = {}
    _visit(kernel.body, same)
    for op in kernel.walk():
        op.operands = [_first(v, same) for v in op.operands]
        if op.name == "mul":
            _multiply(op, same)
    return kernel


def _first(value: Value, same: dict[Value, Value]) -> Value:
    """Return the value that a value is in the end."""
    while value in same:
        value = same[value]
    return value


def _visit(block: Block, same: dict[Value, Value]) -> None:
    """Find out what is always the same, inner blocks first: loops hand on what inner ones do."""
    for op in block.ops:
        for inner in op.blocks:
            _visit(inner, same)
        rule = _RULES.get(op.name)
        if rule is not None:
            rule(op, same)


def _for(op: Op, same: dict[Value, Value]) -> None:
    (body,) = op.blocks
    carried = zip(body.args[1:], op.operands[3:], body.terminator.operands, op.results, strict=True)
    for arg, init, after, result in carried:
        if _first(after, same) in (arg, _first(init, same)):
            same[arg] = same[result] = init


def _while(op: Op, same: dict[Value, Value]) -> None:
    before, after = op.blocks
    passed = [_first(v, same) for v in before.terminator.operands[1:]]
    given = dict(zip(after.args, passed, strict=True))
    nexts = [_first(v, same) for v in after.terminator.operands]
    for arg, init, value in zip(before.args, op.operands, nexts, strict=True):
        if given.get(value, value) not in (arg, _first(init, same)):
            continue
        same[arg] = init
        for inside, outside, source in zip(after.args, op.results, passed, strict=True):
            if source is arg:
                same[inside] = same[outside] = init


def _if(op: Op, same: dict[Value, Value]) -> None:
    sides = [block.terminator.operands for block in op.blocks]
    for result, *values in zip(op.results, *sides, strict=True):
        first, second = (_first(v, same) for v in values)
        if first is second:
            same[result] = first


def _multiply(op: Op, same: dict[Value, Value]) -> None:
    for value, factor in (op.operands, op.operands[::-1]):
        if _is_one(factor):
            same[op.result] = value
            return


def _is_one(value: Value) -> bool:
    op = value.op
    if op is not None and op.name == "broadcast":
        op = op.operands[0].op
    return op is not None and op.name == "const" and op.attrs["value"] == 1


_RULES = {"for": _for, "while": _while, "if": _if}
