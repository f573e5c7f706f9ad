"""Loops over a row whose block, as is usual, turns out to be as long as the row.

Such a loop adds to a block that a reduction then reads. Where it runs more than once the block
lies in memory: written with zeros, read and written each round, read by the reduction. Where it
runs once nothing of that is needed, so a second version computes the only round inside of the
reduction. Both give the same bits. Only native code has it: the chip is timed as the kernel is.
"""

from __future__ import annotations

from asterope.ir import OPS, Block, Builder, Kernel, Op, Type, Value, clone_block, is_volatile

__all__ = ["with_single_rounds"]

# A longer body is written once: the block is the least of it.
_MOST_OPS = 64
_PRODUCTS = ("dot", "dot_scaled")


def with_single_rounds(kernel: Kernel) -> Kernel:
    """Return a copy with a second version of such loops, chosen at run time."""
    copy = Kernel(kernel.name, kernel.params, clone_block(kernel.body, {}), kernel.attrs)
    uses = copy.uses()
    blocks = [copy.body, *(b for op in copy.walk() if op.is_control_flow for b in op.blocks)]
    for block in blocks:
        _rewrite(block, uses)
    return copy


def _rewrite(block: Block, uses: dict[Value, list[Op]]) -> None:
    ops, block.ops = block.ops, []
    moved: set[Op] = set()
    for op in ops:
        if op in moved:
            continue
        reductions = _reductions(op, uses)
        if reductions and all(reduction in ops for reduction in reductions):
            moved.update(reductions)
            _choose(block, op, reductions)
        else:
            block.ops.append(op)


def _reductions(op: Op, uses: dict[Value, list[Op]]) -> list[Op]:
    """Return what reads the blocks of a loop, if it is reductions and the body is light."""
    if op.name != "for" or not _is_light(op.blocks[0]):
        return []
    carried = [v for v in op.results if v.type.shape]
    users = list(dict.fromkeys(user for v in carried for user in uses.get(v, ())))
    is_alone = all(u.name == "reduce" and all(v in carried for v in u.inputs) for u in users)
    return users if is_alone else []


def _is_light(body: Block) -> bool:
    """Whether a body only computes, and not much."""
    ops = list(body.walk())
    inner = [op for op in body.ops[:-1] if _has_effect(op) or op.is_control_flow]
    return len(ops) <= _MOST_OPS and not inner and all(op.name not in _PRODUCTS for op in ops)


def _has_effect(op: Op) -> bool:
    return OPS[op.name].has_effect or is_volatile(op)


def _choose(block: Block, loop: Op, reductions: list[Op]) -> None:
    """Append the loop and its reductions, in one version for a single round and in one for any."""
    b = Builder(block, loop.loc)
    given = _given(loop, reductions)
    once = _once(loop, reductions, given)
    choice = b.op("if", [_runs_once(b, loop)])
    for value in given:
        _hand_over(value, choice)
    many = Block([], [loop, *reductions])
    Builder(many, loop.loc).op("yield", _given(loop, reductions))
    choice.blocks = [once, many]


def _given(loop: Op, reductions: list[Op]) -> list[Value]:
    """Return what others may use of a loop and its reductions: all but the blocks between them."""
    scalars = [v for v in loop.results if not v.type.shape]
    return scalars + [v for reduction in reductions for v in reduction.results]


def _hand_over(value: Value, choice: Op) -> None:
    """Make what an op gave a result of the choice, and give the op a new one."""
    op = value.op
    assert op is not None
    op.results = [Value(v.type, op, v.hint) if v is value else v for v in op.results]
    value.op = choice
    choice.results.append(value)


def _once(loop: Op, reductions: list[Op], given: list[Value]) -> Block:
    """Return the only round, and the reductions of what it yields."""
    (body,) = loop.blocks
    known = dict(zip(body.args, [loop.operands[0], *loop.operands[3:]], strict=True))
    round_ = clone_block(Block([], body.ops), known)
    known.update(zip(loop.results, round_.ops.pop().operands, strict=True))
    round_.ops += clone_block(Block([], reductions), known).ops
    Builder(round_, loop.loc).op("yield", [known[v] for v in given])
    return round_


def _runs_once(b: Builder, loop: Op) -> Value:
    """Whether the first number is below the end and the next one is not, however wide they are."""
    lo, hi, step = loop.operands[:3]
    truth = Type("i1")
    starts = b.value("cmp", (lo, hi), truth, pred="slt")
    ends = b.value("cmp", (b.value("sub", (hi, lo), lo.type), step), truth, pred="ule")
    return b.value("and", (starts, ends), truth)
