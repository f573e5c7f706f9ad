"""Functions for elements that return from several places: jumps between blocks become branches."""

from __future__ import annotations

from asterope.ir import Block, Builder, Op, Value
from asterope.triton_backend.convert.converter import Converter
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.convert.types import convert_type
from asterope.triton_backend.ttir import MlirBlock, MlirOp, MlirValue

__all__ = ["element_block"]


def element_block(cv: Converter, op: MlirOp, region: list[MlirBlock]) -> Block:
    """Convert a region without loops to one block; what several places jump to is repeated."""
    entry = region[0]
    block = Block([Value(convert_type(a.type, op), None, a.name) for a in entry.args])
    cv.env.update(zip(entry.args, block.args, strict=True))
    _Branches(cv, op, region).follow(entry, block, ())
    return block


class _Branches:
    """The blocks of one region by their labels."""

    def __init__(self, cv: Converter, op: MlirOp, region: list[MlirBlock]) -> None:
        self.cv, self.op = cv, op
        self.blocks = {block.label: block for block in region}

    def follow(self, source: MlirBlock, target: Block, path: tuple[MlirBlock, ...]) -> list[Value]:
        """Append a block and all that follows it; return what is yielded at the end."""
        if source in path:
            raise unsupported(self.op, "a function for elements that jumps back is not supported")
        builder = Builder(target)
        *ops, last = source.ops
        for op in ops:
            builder.loc = op.loc
            self.cv.op(op, builder)
        builder.loc = last.loc
        path = (*path, source)
        if last.name == "cf.br":
            return self.follow(self._enter(last.successors[0], last.operands), target, path)
        if last.name != "cf.cond_br":
            self.cv.op(last, builder)
            return target.terminator.operands
        found = self._choose(last, builder, path)
        builder.op("yield", found.results)
        return list(found.results)

    def _choose(self, last: MlirOp, builder: Builder, path: tuple[MlirBlock, ...]) -> Op:
        condition, *given = last.operands
        _, count, _ = last.attrs["operandSegmentSizes"]
        chosen = self.cv.env[condition]
        sides, types = [], []
        for label, values in zip(last.successors, (given[:count], given[count:]), strict=True):
            side = Block()
            found = self.follow(self._enter(label, values), side, path)
            types = [v.type for v in found]
            sides.append(side)
        return builder.op("if", (chosen,), types, {}, sides)

    def _enter(self, label: str, values: list[MlirValue]) -> MlirBlock:
        block = self.blocks[label]
        given = [self.cv.env[v] for v in values]
        self.cv.env.update(zip(block.args, given, strict=True))
        return block
