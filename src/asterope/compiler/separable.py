"""Separable blocks: what pointer arithmetic is made of.

An integer or pointer block is *separable* if it is a scalar plus one vector for each dimension:
v[i, j] = s + a[i] + b[j]. A mask is separable if it is a scalar and one vector for each
dimension: m[i, j] = c and p[i] and q[j].

Address arithmetic is taken not to wrap around 32 bits: i32 sums are split before they are widened.
Parts that rest on this are not `exact`, and never stand in for data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from asterope.ir import Builder, Op, Type, Value

__all__ = ["Parts", "Separable"]

_LINEAR = ("add", "sub")
_SINGLE = (
    "mul", "divs", "divu", "rems", "remu", "and", "or", "xor", "shl", "shrs", "shru",
    "mins", "maxs", "minu", "maxu", "cmp", "select", "iabs",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Parts:
    """A separable block: an optional scalar and at most one vector a dimension.

    Integers and pointers are the sum of the parts, i1 blocks their conjunction. `exact` unless
    that holds only because 32-bit sums are taken not to wrap.
    """

    rank: int
    scalar: Value | None = None
    along: dict[int, Value] = field(default_factory=dict)
    exact: bool = True

    def same_vectors(self, other: Parts) -> bool:
        """Whether both have the very same vectors along the same dimensions."""
        return self.along.keys() == other.along.keys() and all(
            self.along[d] is other.along[d] for d in self.along
        )


class Separable:
    """Knows the parts of the blocks seen so far; `split` looks at one more op."""

    def __init__(self, parts: dict[Value, Parts] | None = None) -> None:
        self.parts: dict[Value, Parts] = dict(parts or {})

    def split(self, op: Op, b: Builder) -> None:
        """Record the parts of a new block, if it is separable."""
        type_ = op.results[0].type
        if not (type_.is_int or type_.is_ptr) or len(op.results) != 1:
            return
        rule = _RULES.get(op.name)
        found = rule(self, op, b) if rule else None
        if found is not None:
            known = (self.parts.get(v) for v in op.operands)
            found.exact = found.exact and all(p.exact for p in known if p is not None)
        if found is None and len(type_.shape) == 1 and not type_.is_ptr:
            found = Parts(1, None, {0: op.result})
        if found is not None:
            self.parts[op.result] = found

    def of(self, value: Value) -> Parts | None:
        """Return the parts of a block or scalar."""
        if not value.type.shape:
            return Parts(0, value)
        found = self.parts.get(value)
        if found is None and len(value.type.shape) == 1 and value.type.is_int:
            found = Parts(1, None, {0: value})
        return found

    def _const(self, op: Op, b: Builder) -> Parts:
        scalar = b.const(Type(op.result.type.elem), op.attrs["value"])
        return Parts(len(op.result.type.shape), scalar)

    def _broadcast(self, op: Op, b: Builder) -> Parts | None:
        source = op.operands[0]
        rank = len(op.result.type.shape)
        if not source.type.shape:
            return Parts(rank, source)
        found = self.of(source)
        if found is None:
            return None
        scalar, kept = found.scalar, dict(found.along)
        for d in found.along:
            if source.type.shape[d] == 1:
                scalar = self._add_one(scalar, kept.pop(d), b)
        return Parts(rank, scalar, kept)

    def _add_one(self, scalar: Value | None, vector: Value, b: Builder) -> Value:
        """Make a vector of length 1, which stretches, part of the scalar."""
        one = b.value("reshape", (vector,), vector.type.with_shape(()))
        if scalar is None:
            return one
        if scalar.type.is_ptr:
            return b.value("addptr", (scalar, one), scalar.type)
        return b.value("and" if one.type.elem == "i1" else "add", (scalar, one), scalar.type)

    def _expand(self, op: Op, b: Builder) -> Parts | None:
        found = self.of(op.operands[0])
        if found is None:
            return None
        axis = op.attrs["axis"]
        along = {d + (d >= axis): v for d, v in found.along.items()}
        return Parts(found.rank + 1, found.scalar, along)

    def _transpose(self, op: Op, b: Builder) -> Parts | None:
        found = self.of(op.operands[0])
        if found is None:
            return None
        order = list(op.attrs["order"])
        return Parts(found.rank, found.scalar, {order.index(d): v for d, v in found.along.items()})

    def _bitcast(self, op: Op, b: Builder) -> Parts | None:
        """Look at pointers as pointers to other elements of the same size."""
        source, target = op.operands[0].type, op.result.type
        found = self.of(op.operands[0])
        if not (source.is_ptr and target.is_ptr) or found is None or found.scalar is None:
            return self._single(op, b)
        if found.along and _element_bytes(source) != _element_bytes(target):
            return None
        scalar = b.value("bitcast", (found.scalar,), target.with_shape(()))
        return Parts(found.rank, scalar, dict(found.along))

    def _linear(self, op: Op, b: Builder) -> Parts | None:
        if op.result.type.elem == "i1":
            return self._single(op, b)
        left, right = (self.of(v) for v in op.operands)
        if left is None or right is None:
            return None
        scalar = self._combine(op.name, left.scalar, right.scalar, b)
        along = {}
        for d in sorted(left.along.keys() | right.along.keys()):
            vector = self._combine(op.name, left.along.get(d), right.along.get(d), b)
            assert vector is not None
            along[d] = vector
        return Parts(left.rank, scalar, along)

    def _combine(self, name: str, a: Value | None, c: Value | None, b: Builder) -> Value | None:
        """Combine two parts of one dimension, either of which may be absent (zero)."""
        if c is None:
            return a
        if a is None:
            if name == "add":
                return c
            a = b.const(c.type, 0)
        return b.value(name, (a, c), a.type)

    def _addptr(self, op: Op, b: Builder) -> Parts | None:
        pointer, offset = (self.of(v) for v in op.operands)
        if pointer is None or offset is None or pointer.scalar is None:
            return None
        base = pointer.scalar
        if offset.scalar is not None:
            base = b.value("addptr", (base, offset.scalar), base.type)
        dims = pointer.along.keys() | offset.along.keys()
        along = {}
        for d in sorted(dims):
            mine, theirs = _same_width(pointer.along.get(d), offset.along.get(d), b)
            combined = self._combine("add", mine, theirs, b)
            assert combined is not None
            along[d] = combined
        return Parts(pointer.rank, base, along)

    def _multiply(self, op: Op, b: Builder) -> Parts | None:
        left, right = (self.of(v) for v in op.operands)
        if left is None or right is None or op.result.type.elem == "i1":
            return self._single(op, b)
        if left.along and right.along:
            return self._single(op, b)
        many, factor = (left, right.scalar) if not right.along else (right, left.scalar)
        if factor is None:
            return None
        scalar = many.scalar and b.value("mul", (many.scalar, factor), factor.type)
        along = {
            d: b.value("mul", (v, b.value("broadcast", (factor,), v.type)), v.type)
            for d, v in many.along.items()
        }
        return Parts(many.rank, scalar, along)

    def _and(self, op: Op, b: Builder) -> Parts | None:
        if op.result.type.elem != "i1":
            return self._single(op, b)
        left, right = (self.of(v) for v in op.operands)
        if left is None or right is None:
            return None

        def both(x: Value | None, y: Value | None) -> Value | None:
            return b.value("and", (x, y), x.type) if x and y else x or y

        dims = left.along.keys() | right.along.keys()
        along = {d: both(left.along.get(d), right.along.get(d)) for d in sorted(dims)}
        scalar = both(left.scalar, right.scalar)
        return Parts(left.rank, scalar, {d: v for d, v in along.items() if v is not None})

    def _convert(self, op: Op, b: Builder) -> Parts | None:
        found = self.of(op.operands[0])
        how, elem = op.attrs["how"], op.result.type.elem
        if found is None or op.operands[0].type.elem == "i1" or elem == "i1":
            return self._single(op, b)
        wraps = how == "sext" and len(found.along) + (found.scalar is not None) > 1
        if how not in ("sext", "trunc") or (wraps and op.operands[0].type.elem != "i32"):
            return self._single(op, b)

        def each(v: Value) -> Value:
            return b.value("convert", (v,), v.type.with_elem(elem), how=how)

        along = {d: each(v) for d, v in found.along.items()}
        return Parts(found.rank, found.scalar and each(found.scalar), along, exact=not wraps)

    def _single(self, op: Op, b: Builder) -> Parts | None:
        """Handle any op whose operands vary along one dimension together: compute it there."""
        found = [self.of(v) for v in op.operands]
        if any(p is None for p in found):
            return None
        present = [p for p in found if p is not None]
        dims = {d for p in present for d in p.along}
        if len(dims) > 1:
            return None
        rank = len(op.result.type.shape)
        if not dims:
            scalars = [p.scalar for p in present]
            if any(s is None for s in scalars):
                return None
            operands = [s for s in scalars if s is not None]
            return Parts(rank, b.value(op.name, operands, Type(op.result.type.elem), **op.attrs))
        (dim,) = dims
        size = op.result.type.shape[dim]
        vectors = [
            self._collapse(p, v.type, dim, size, b)
            for p, v in zip(present, op.operands, strict=True)
        ]
        result = b.value(op.name, vectors, Type(op.result.type.elem, (size,)), **op.attrs)
        return Parts(rank, None, {dim: result})

    def _collapse(self, parts: Parts, type_: Type, dim: int, size: int, b: Builder) -> Value:
        """Make the vector along one dimension that a block with at most that dimension is."""
        vector = parts.along.get(dim)
        if parts.scalar is None:
            assert vector is not None
            return vector
        shape = Type(parts.scalar.type.elem, (size,))
        stretched = b.value("broadcast", (parts.scalar,), shape)
        if vector is None:
            return stretched
        name = "and" if type_.elem == "i1" else "add"
        if type_.is_ptr:
            return b.value("addptr", (stretched, vector), shape)
        return b.value(name, (stretched, vector), shape)

    def whole(self, parts: Parts, type_: Type, b: Builder) -> Value:
        """Make the block that its parts describe."""
        assert parts.scalar is not None
        whole = b.value("broadcast", (parts.scalar,), type_)
        for d, vector in parts.along.items():
            wide = vector
            for axis in range(parts.rank):
                if axis != d:
                    shape = (*wide.type.shape[:axis], 1, *wide.type.shape[axis:])
                    wide = b.value("expand", (wide,), wide.type.with_shape(shape), axis=axis)
            stretched = b.value("broadcast", (wide,), vector.type.with_shape(type_.shape))
            whole = b.value("addptr" if type_.is_ptr else "add", (whole, stretched), type_)
        return whole


def _element_bytes(pointers: Type) -> int:
    return max(1, Type(pointers.pointee).bits // 8)


def _same_width(a: Value | None, c: Value | None, b: Builder) -> tuple[Value | None, Value | None]:
    """Widen the narrower of two integer vectors."""
    if a is None or c is None or a.type == c.type:
        return a, c
    wide = a.type if a.type.bits > c.type.bits else c.type

    def widen(v: Value) -> Value:
        return v if v.type == wide else b.value("convert", (v,), wide, how="sext")

    return widen(a), widen(c)


_RULES: dict[str, Callable[[Separable, Op, Builder], Parts | None]] = {
    "const": Separable._const,
    "broadcast": Separable._broadcast,
    "expand": Separable._expand,
    "transpose": Separable._transpose,
    "addptr": Separable._addptr,
    "bitcast": Separable._bitcast,
    "convert": Separable._convert,
    **dict.fromkeys(_LINEAR, Separable._linear),
    **dict.fromkeys(_SINGLE, Separable._single),
    "mul": Separable._multiply,
    "and": Separable._and,
}
