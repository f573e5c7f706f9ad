"""Remove what is computed twice or for nobody."""

from __future__ import annotations

from asterope.ir import OPS, READS, Block, Kernel, Op, Value, is_volatile

__all__ = ["simplify"]

_NOT_PURE = ("load", "load_tile")


def simplify(kernel: Kernel) -> Kernel:
    """Share equal pure ops, then drop unused ones; changes the kernel in place and returns it."""
    _share(kernel.body, {}, {})
    while _drop_unused(kernel):
        pass
    return kernel


def _has_effect(op: Op) -> bool:
    return OPS[op.name].has_effect or is_volatile(op)


def _key(op: Op, operands: tuple[Value, ...]) -> tuple[object, ...] | None:
    if _has_effect(op) or op.name in _NOT_PURE or op.blocks:
        return None
    attrs = tuple(sorted((k, type(v).__name__, str(v)) for k, v in op.attrs.items()))
    return (op.name, tuple(id(v) for v in operands), attrs, tuple(r.type for r in op.results))


def _share(block: Block, seen: dict[tuple[object, ...], Op], same: dict[Value, Value]) -> None:
    """Replace an op by an equal one that is already defined in this block or around it."""
    visible = dict(seen)
    kept = []
    for op in block.ops:
        op.operands = [same.get(v, v) for v in op.operands]
        key = _key(op, tuple(op.operands))
        earlier = visible.get(key) if key else None
        if earlier is not None:
            same.update(zip(op.results, earlier.results, strict=True))
            continue
        if key:
            visible[key] = op
        for inner in op.blocks:
            _share(inner, visible, same)
        kept.append(op)
    block.ops = kept


def _drop_unused(kernel: Kernel) -> bool:
    """Drop ops without effect or users, and loop values nobody reads; True if something went."""
    used = {v for op in kernel.walk() for v in op.operands}
    return _drop_in(kernel.body, used)


def _drop_in(block: Block, used: set[Value]) -> bool:
    changed = False
    kept = []
    for op in block.ops:
        for inner in op.blocks:
            changed |= _drop_in(inner, used)
        if _is_needed(op, used):
            changed |= _drop_carried(op, used)
            kept.append(op)
        else:
            changed = True
    block.ops = kept
    return changed


def _is_needed(op: Op, used: set[Value]) -> bool:
    if _has_effect(op) or any(r in used for r in op.results):
        return True
    inner = [q for b in op.blocks for q in b.walk()]
    if op.name == "while" and any(q.name in READS for q in inner):
        return True  # it waits for what another program writes
    return any(_has_effect(q) and q.name not in ("yield", "condition") for q in inner)


def _drop_carried(op: Op, used: set[Value]) -> bool:
    """Drop values a `for` carries but that only feed themselves, and an `if` gives to nobody."""
    if op.name == "if":
        return _drop_given(op, used)
    if op.name != "for":
        return False
    (body,) = op.blocks
    last = body.terminator
    doomed = [
        i
        for i, (result, arg) in enumerate(zip(op.results, body.args[1:], strict=True))
        if result not in used and not _reaches_more_than_itself(body, arg, i)
    ]
    for i in reversed(doomed):
        del op.operands[3 + i], op.results[i], body.args[1 + i], last.operands[i]
    return bool(doomed)


def _drop_given(op: Op, used: set[Value]) -> bool:
    doomed = [i for i, result in enumerate(op.results) if result not in used]
    for i in reversed(doomed):
        del op.results[i]
        for block in op.blocks:
            del block.terminator.operands[i]
    return bool(doomed)


def _reaches_more_than_itself(body: Block, arg: Value, index: int) -> bool:
    """Whether a carried value is used for anything but the computation of its own next value."""
    feeds = {arg}
    for op in body.ops[:-1]:
        if not any(v in feeds for q in op.walk() for v in q.operands):
            continue
        if op.blocks or _has_effect(op):
            return True
        feeds.update(op.results)
    return any(v in feeds for i, v in enumerate(body.terminator.operands) if i != index)
