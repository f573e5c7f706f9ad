"""Blocks of many small dimensions, computed in one.

Triton's `sort`, `topk` and `flip` take a block apart into dimensions of size 2. Loops over those
are short, and their vectors shorter. Where the elements of such a block are computed one by one,
this pass has them computed in row-major order, as one long dimension: an index along an inner
dimension becomes bits of the long one, and neighbours along it exchange places there.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from asterope.ir import ELEMENTWISE_OPS, Block, Builder, Kernel, Op, Type, Value

__all__ = ["flatten"]

_MANY = 4  # dimensions from which on a block is computed in one


def flatten(kernel: Kernel) -> Kernel:
    """Return the kernel with blocks that were taken apart into many dimensions as one dimension.

    An xor with the xor of both elements along a dimension of size 2 becomes their exchange.
    """
    body = Block([Value(a.type, None, a.hint) for a in kernel.body.args])
    _Flattener(dict(zip(kernel.body.args, body.args, strict=True)), {}).fill(kernel.body, body)
    return Kernel(kernel.name, list(kernel.params), body, dict(kernel.attrs))


def _is_deep(type_: Type) -> bool:
    return len(type_.shape) >= _MANY and all(n & (n - 1) == 0 for n in type_.shape)


def _line_type(type_: Type) -> Type:
    return type_.with_shape((type_.num_elements,))


class _Flattener:
    """Rewrites one block: `env` maps old values to new ones, `flat` to new ones in one dimension.

    Blocks get into `flat` where they are taken apart; what is computed from them stays there.
    """

    def __init__(self, env: dict[Value, Value], flat: dict[Value, Value]) -> None:
        self.env, self.flat = env, flat

    def fill(self, source: Block, target: Block) -> None:
        """Rewrite the ops of a block into another."""
        for op in source.ops:
            rule = _RULES.get(op.name)
            if rule is None and op.name in ELEMENTWISE_OPS:
                rule = _Flattener._elementwise
            if rule is None or not rule(self, op, Builder(target, op.loc)):
                self._copy(op, Builder(target, op.loc))

    def _copy(self, op: Op, b: Builder) -> None:
        operands = [self.whole(v, b) for v in op.operands]
        new = b.op(op.name, operands, [r.type for r in op.results], op.attrs, self._blocks(op))
        for old, result in zip(op.results, new.results, strict=True):
            result.hint = old.hint
            self.env[old] = result

    def _blocks(self, op: Op) -> list[Block]:
        copies = []
        for block in op.blocks:
            inner = Block([Value(a.type, None, a.hint) for a in block.args])
            env = {**self.env, **dict(zip(block.args, inner.args, strict=True))}
            _Flattener(env, dict(self.flat)).fill(block, inner)
            copies.append(inner)
        return copies

    # -- values ---------------------------------------------------------------------------------
    def whole(self, value: Value, b: Builder) -> Value:
        """Return a value in its own shape."""
        if value not in self.env:
            self.env[value] = _reshaped(self.flat[value], value.type, b)
        return self.env[value]

    def line(self, value: Value, b: Builder) -> Value:
        """Return a block in one dimension."""
        if value in self.flat:
            return self.flat[value]
        found = self._stretched(value, value.type.shape, b)
        if found is not None:
            return found
        return _reshaped(self.whole(value, b), _line_type(value.type), b)

    def _stretched(self, value: Value, shape: tuple[int, ...], b: Builder) -> Value | None:
        """Compute constants and indices, stretched to a shape, from the place in the line."""
        op, to = value.op, Type(value.type.elem, (prod(shape),))
        if op is None:
            return None
        if op.name == "const":
            return b.value("const", (), to, value=op.attrs["value"])
        if op.name == "broadcast":
            (source,) = op.operands
            if not source.type.shape:
                return b.value("broadcast", (self.whole(source, b),), to)
            return self._stretched(source, shape, b)
        if op.name in ("reshape", "expand", "iota"):
            return self._index(value, shape, b)
        if op.name not in ELEMENTWISE_OPS or not to.is_int:
            return None
        parts = [self._stretched(v, shape, b) for v in op.operands]
        operands = [p for p in parts if p is not None]
        if len(operands) < len(parts):
            return None
        return b.value(op.name, operands, to, **op.attrs)

    def _index(self, value: Value, shape: tuple[int, ...], b: Builder) -> Value | None:
        """Return the index along one dimension as bits of the place in the line."""
        source = value
        while source.op is not None and source.op.name in ("reshape", "expand"):
            source = source.op.operands[0]
        along = [d for d, n in enumerate(value.type.shape) if n > 1]
        if source.op is None or source.op.name != "iota" or len(along) != 1:
            return None
        (dim,) = along
        to = Type("i32", (prod(shape),))
        place = b.value("iota", (), to, start=0)
        behind = prod(shape[dim + 1 :]).bit_length() - 1
        index = b.value("shru", (place, b.const(to, behind)), to) if behind else place
        if prod(shape) >> behind > shape[dim]:
            index = b.value("and", (index, b.const(to, shape[dim] - 1)), to)
        start = source.op.attrs["start"]
        return b.value("add", (index, b.const(to, start)), to) if start else index

    # -- ops ------------------------------------------------------------------------------------
    def _elementwise(self, op: Op, b: Builder) -> bool:
        type_ = op.result.type
        if not _is_deep(type_) or not any(v in self.flat for v in op.operands):
            return False
        operands = [self.line(v, b) if v.type.shape else self.whole(v, b) for v in op.operands]
        self._bind(op, b.value(op.name, operands, _line_type(type_), **op.attrs))
        return True

    def _bind(self, op: Op, line: Value) -> None:
        line.hint = line.hint or op.result.hint
        self.flat[op.result] = line

    def _access(self, op: Op, b: Builder) -> bool:
        """Read or write through pointers that are in one dimension."""
        if op.operands[0] not in self.flat:
            return False
        types = [_line_type(r.type) for r in op.results]
        new = b.op(op.name, [self.line(v, b) for v in op.operands], types, op.attrs)
        for result in new.results:
            self._bind(op, result)
        return True

    def _reshape(self, op: Op, b: Builder) -> bool:
        (source,) = op.operands
        type_ = op.result.type
        if source in self.flat and type_.shape:
            self._bind(op, self.flat[source])
            return True
        if op.name != "reshape" or not _is_deep(type_) or not source.type.shape:
            return False
        self._bind(op, _reshaped(self.whole(source, b), _line_type(type_), b))
        return True

    def _combine(self, op: Op, b: Builder) -> bool:
        """Reduce or scan in three dimensions: those before the axis, the axis, those behind."""
        shape, axis = op.operands[0].type.shape, op.attrs["axis"]
        if op.operands[0] not in self.flat or not _is_deep(op.operands[0].type):
            return False
        before, size, behind = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
        blocks = [
            _reshaped(self.line(v, b), v.type.with_shape((before, size, behind)), b)
            for v in op.operands
        ]
        small = (before, behind) if op.name == "reduce" else (before, size, behind)
        types = [r.type.with_shape(small) for r in op.results]
        new = b.op(op.name, blocks, types, {**op.attrs, "axis": 1}, self._blocks(op))
        for old, result in zip(op.results, new.results, strict=True):
            self.flat[old] = _reshaped(result, _line_type(old.type), b)
        return True

    def _xor(self, op: Op, b: Builder) -> bool:
        """Exchange neighbours: a ^ (a ^ b) is b, and b ^ (a ^ b) is a."""
        for pair, both in (op.operands, op.operands[::-1]):
            axis = _axis_of_pairs(pair, both)
            if axis is None:
                continue
            if pair in self.flat:
                behind = prod(pair.type.shape[axis + 1 :])
                self._bind(op, _exchanged(self.flat[pair], behind, b))
            else:
                source = self.whole(pair, b)
                self.env[op.result] = b.value("exchange", (source,), source.type, axis=axis, mask=1)
            return True
        return self._elementwise(op, b)

    def _bitcast(self, op: Op, b: Builder) -> bool:
        """Reread exchanged elements as what they were before."""
        line = self.flat.get(op.operands[0])
        if line is not None and line.op is not None and line.op.name == "exchange":
            first = line.op.operands[0].op
            same = first is not None and first.name == "bitcast"
            if first is not None and same and first.operands[0].type == _line_type(op.result.type):
                self._bind(op, _exchanged(first.operands[0], line.op.attrs["mask"], b))
                return True
        return self._elementwise(op, b)


def _axis_of_pairs(pair: Value, both: Value) -> int | None:
    """Return the dimension of size 2 along which `both` is the xor of the elements of `pair`."""
    stretch = both.op
    if stretch is None or stretch.name != "broadcast":
        return None
    shaped = stretch.operands[0].op
    if shaped is None or shaped.name not in ("expand", "reshape"):
        return None
    combined = shaped.operands[0].op
    if combined is None or combined.name != "reduce" or combined.attrs.get("combine") != "xor":
        return None
    axis: int = combined.attrs["axis"]
    shape = pair.type.shape
    if combined.operands[0] is not pair or shape[axis] != 2:
        return None
    return axis if shaped.result.type.shape == (*shape[:axis], 1, *shape[axis + 1 :]) else None


def _reshaped(value: Value, type_: Type, b: Builder) -> Value:
    """Reshape from where a block was first shaped, if at all."""
    while value.type != type_ and value.op is not None and value.op.name == "reshape":
        (value,) = value.op.operands
    return value if value.type == type_ else b.value("reshape", (value,), type_)


def _exchanged(line: Value, mask: int, b: Builder) -> Value:
    """Exchange elements of a line; two exchanges are one."""
    if line.op is not None and line.op.name == "exchange":
        mask ^= line.op.attrs["mask"]
        (line,) = line.op.operands
    return b.value("exchange", (line,), line.type, axis=0, mask=mask) if mask else line


_RULES: dict[str, Callable[[_Flattener, Op, Builder], bool]] = {
    "load": _Flattener._access,
    "store": _Flattener._access,
    "reshape": _Flattener._reshape,
    "expand": _Flattener._reshape,
    "reduce": _Flattener._combine,
    "scan": _Flattener._combine,
    "xor": _Flattener._xor,
    "bitcast": _Flattener._bitcast,
}
