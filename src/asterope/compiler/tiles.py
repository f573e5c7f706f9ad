"""Turn loads and stores through separable pointers into tiles, which a DMA engine can execute.

Others stay gathers and scatters. Pointers that a loop moves become a scalar base that it moves.
"""

from __future__ import annotations

from typing import Any

from asterope.compiler.loop_pointers import LoopAttempt
from asterope.compiler.separable import Parts, Separable
from asterope.ir import Block, Builder, Kernel, Op, Type, Value, is_pinned, is_volatile

__all__ = ["TileFinder", "find_tiles"]


class TileFinder:
    """Rewrites one kernel; `env` maps old values to new ones."""

    def __init__(self) -> None:
        self.env: dict[Value, Value] = {}
        self.known = Separable()

    def kernel(self, kernel: Kernel) -> Kernel:
        """Return the rewritten kernel."""
        body = Block([Value(a.type, None, a.hint) for a in kernel.body.args])
        self.env.update(zip(kernel.body.args, body.args, strict=True))
        self.fill(kernel.body.ops, body)
        return Kernel(kernel.name, list(kernel.params), body, dict(kernel.attrs))

    def fill(self, ops: list[Op], target: Block) -> None:
        """Rewrite ops into a block."""
        for op in ops:
            self._op(op, Builder(target, op.loc))

    def _op(self, op: Op, b: Builder) -> None:
        operands = [self.env[v] for v in op.operands]
        if op.name == "for":
            self._for(op, operands, b)
        elif op.blocks:
            self._copy_with_blocks(op, operands, b)
        elif not self._access(op, operands, b):
            new = b.op(op.name, operands, [r.type for r in op.results], op.attrs)
            self._bind(op, new.results)
            if op.results and op.results[0].type.shape:
                self.known.split(new, b)

    def _access(self, op: Op, operands: list[Value], b: Builder) -> bool:
        if op.name == "load" and op.result.type.shape:
            return self._load(op, operands, b)
        if op.name == "store" and operands[0].type.shape:
            return self._store(op, operands, b)
        if op.name == "atomic_rmw" and operands[0].type.shape:
            return self._atomic(op, operands, b)
        return False

    def _bind(self, op: Op, values: list[Value]) -> None:
        for old, new in zip(op.results, values, strict=True):
            new.hint = new.hint or old.hint
            self.env[old] = new

    def _copy_with_blocks(self, op: Op, operands: list[Value], b: Builder) -> None:
        new = b.op(op.name, operands, [r.type for r in op.results], op.attrs)
        for block in op.blocks:
            inner = Block([Value(a.type, None, a.hint) for a in block.args])
            self.env.update(zip(block.args, inner.args, strict=True))
            self.fill(block.ops, inner)
            new.blocks.append(inner)
        self._bind(op, new.results)

    def _for(self, op: Op, operands: list[Value], b: Builder) -> None:
        """Try to carry only the scalars of separable blocks, then also their vectors."""
        plans = {
            i: "scalar"
            for i, init in enumerate(operands[3:])
            if init.type.shape and (init.type.is_int or init.type.is_ptr) and init.type.elem != "i1"
            and (p := self.known.of(init)) is not None and p.scalar is not None
            and (p.exact or init.type.is_ptr)
        }  # fmt: skip
        while True:
            inner = TileFinder()
            inner.env, inner.known = dict(self.env), Separable(self.known.parts)
            attempt = LoopAttempt(inner, op, operands, plans)
            failed = attempt.run()
            if not failed:
                attempt.commit(self.env, self.known, b)
                return
            for i in failed:
                if plans[i] == "scalar":
                    plans[i] = "all"
                else:
                    del plans[i]

    # -- accesses -------------------------------------------------------------------------------
    def _tile_operands(
        self,
        pointer: Value,
        mask: Value | None,
        dims: list[int],
        shape: tuple[int, ...],
        b: Builder,
    ) -> tuple[list[Value], tuple[int, ...]]:
        """Return base, offsets and masks over `dims`, and which of these have masks."""
        where = self.known.parts[pointer]
        masks = self.known.of(mask) if mask is not None else Parts(len(shape))
        assert masks is not None
        assert where.scalar is not None
        offsets = [where.along.get(d) or b.const(Type("i32", (shape[d],)), 0) for d in dims]
        vectors = dict(masks.along)
        if masks.scalar is not None:
            first = dims[0]
            stretched = b.value("broadcast", (masks.scalar,), Type("i1", (shape[first],)))
            mine = vectors.get(first)
            vectors[first] = (
                b.value("and", (mine, stretched), stretched.type) if mine else stretched
            )
        masked = [d for d in dims if d in vectors]
        operands = [where.scalar, *offsets, *(vectors[d] for d in masked)]
        return operands, tuple(dims.index(d) for d in masked)

    def _is_tile(self, pointer: Value, mask: Value | None) -> bool:
        where = self.known.parts.get(pointer)
        if where is None or where.scalar is None:
            return False
        return mask is None or self.known.of(mask) is not None

    def _is_one_to_one(self, pointer: Value) -> bool:
        """Whether no dimension repeats an address for lack of an offset."""
        along = self.known.parts[pointer].along
        return all(size == 1 or d in along for d, size in enumerate(pointer.type.shape))

    def _load(self, op: Op, operands: list[Value], b: Builder) -> bool:
        pointer = operands[0]
        mask = operands[1] if op.attrs.get("mask") else None
        if not self._is_tile(pointer, mask):
            return False
        shape = op.result.type.shape
        masks = self.known.of(mask) if mask is not None else Parts(len(shape))
        assert masks is not None
        dims = sorted(self.known.parts[pointer].along.keys() | masks.along.keys())
        other = operands[-1] if op.attrs.get("other") and mask is not None else None
        filler = self._scalar_behind(other, b)
        # A single address is a tile of one element.
        over, sizes = (dims, shape) if dims else ([0], (1,))
        rest, mask_dims = self._tile_operands(pointer, mask, over, sizes, b)
        attrs: dict[str, Any] = {"mask_dims": mask_dims}
        if is_volatile(op):
            attrs["volatile"] = True
        if is_pinned(op):
            attrs["pinned"] = True
        if filler is not None:
            rest.append(filler)
            attrs["other"] = True
        small = op.result.type.with_shape(tuple(sizes[d] for d in over))
        value = b.value("load_tile", rest, small, **attrs)
        value.hint = op.result.hint
        value = _stretch(value, dims, op.result.type, b)
        if mask is not None and other is not None and filler is None:
            value = b.value("select", (mask, value, other), value.type)
        self._bind(op, [value])
        if value.type.is_int and len(shape) == 1:
            self.known.parts[value] = Parts(1, None, {0: value})
        return True

    def _store(self, op: Op, operands: list[Value], b: Builder) -> bool:
        pointer, value = operands[:2]
        mask = operands[2] if op.attrs.get("mask") else None
        shape = value.type.shape
        if not self._is_tile(pointer, mask) or not self._is_one_to_one(pointer):
            return False
        rest, mask_dims = self._tile_operands(pointer, mask, list(range(len(shape))), shape, b)
        b.op("store_tile", [value, *rest], (), {"mask_dims": mask_dims})
        return True

    def _atomic(self, op: Op, operands: list[Value], b: Builder) -> bool:
        pointer, value = operands[:2]
        mask = operands[2] if op.attrs.get("mask") else None
        shape = value.type.shape
        if not self._is_tile(pointer, mask):
            return False
        rest, mask_dims = self._tile_operands(pointer, mask, list(range(len(shape))), shape, b)
        attrs = {k: v for k, v in op.attrs.items() if k != "mask"} | {"mask_dims": mask_dims}
        self._bind(op, [b.value("atomic_rmw_tile", [value, *rest], value.type, **attrs)])
        return True

    def _scalar_behind(self, value: Value | None, b: Builder) -> Value | None:
        """Return the scalar that a block repeats, if it does."""
        if value is None or value.op is None:
            return None
        if value.op.name == "const":
            return b.const(Type(value.type.elem), value.op.attrs["value"])
        if value.op.name == "broadcast" and not value.op.operands[0].type.shape:
            return value.op.operands[0]
        found = self.known.parts.get(value)
        return found.scalar if found and not found.along else None


def _stretch(value: Value, dims: list[int], type_: Type, b: Builder) -> Value:
    """Put back the dimensions along which a loaded tile repeats."""
    if value.type == type_:
        return value
    if not dims:
        return b.value("broadcast", (b.value("reshape", (value,), type_.with_shape(())),), type_)
    for d in range(len(type_.shape)):
        if d not in dims:
            shape = (*value.type.shape[:d], 1, *value.type.shape[d:])
            value = b.value("expand", (value,), value.type.with_shape(shape), axis=d)
    return b.value("broadcast", (value,), type_)


def find_tiles(kernel: Kernel) -> Kernel:
    """Return the kernel with separable accesses as tiles and loop-carried pointers as scalars."""
    return TileFinder().kernel(kernel)
