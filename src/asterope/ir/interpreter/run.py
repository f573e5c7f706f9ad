"""Run a kernel one program and one op after the other: slow, obvious, the definition."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.errors import KernelError
from asterope.ir.accesses import READS, WRITES
from asterope.ir.interpreter.atomics import ATOMIC
from asterope.ir.interpreter.blocks import BLOCKS
from asterope.ir.interpreter.by_element import BY_ELEMENT_OPS
from asterope.ir.interpreter.elementwise import ELEMENTWISE, dtype_of
from asterope.ir.interpreter.memory import Memory, tile_addresses
from asterope.ir.program import Block, Kernel, Op, Value
from asterope.ir.reports import assertion_error, printed

__all__ = ["ELEMENTWISE_OPS", "OPS_INTERPRETED", "interpret"]

Array = npt.NDArray[Any]
_CONTROL = ("for", "while", "if", "yield", "condition", "return", "program_id", "num_programs")
_REPORTS = ("print", "assert")
_MEMORY = ("load", "store", "load_tile", "store_tile")
ELEMENTWISE_OPS = frozenset(ELEMENTWISE)
OPS_INTERPRETED = frozenset(
    {*ELEMENTWISE, *BLOCKS, *BY_ELEMENT_OPS, *ATOMIC, *_CONTROL, *_REPORTS, *_MEMORY}
)


def interpret(
    kernel: Kernel, grid: tuple[int, int, int], args: Sequence[Any], memory: Memory | None = None
) -> None:
    """Run every program of a grid, x fastest; arrays among `args` are read and written in place.

    `memory` has more that may be accessed, and perhaps somebody who watches.

    Shapes: `args` are C-contiguous arrays or addresses for pointers and numbers for scalars.
    Raises: KernelError for an access outside the arrays, with the kernel's source line;
    DeviceAssertError for an assertion that does not hold.
    """
    if len(args) != len(kernel.params):
        raise KernelError(
            f"takes {len(kernel.params)} arguments, got {len(args)}", where=kernel.name
        )
    memory = memory or Memory()
    values: list[Array] = []
    with np.errstate(all="ignore"):
        for param, value, arg in zip(kernel.params, kernel.body.args, args, strict=True):
            number = memory.add(param.name, arg) if isinstance(arg, np.ndarray) else arg
            values.append(np.asarray(number).astype(dtype_of(value.type)))
        for z in range(grid[2]):
            for y in range(grid[1]):
                for x in range(grid[0]):
                    _Program(memory, grid, (x, y, z)).run(kernel, values)


class _Program:
    """The state of one program: the value of everything defined so far."""

    def __init__(self, memory: Memory, grid: Sequence[int], program: Sequence[int]) -> None:
        self.memory = memory
        self.grid = grid
        self.program = program
        self.env: dict[Value, Array] = {}

    def run(self, kernel: Kernel, args: Sequence[Array]) -> None:
        self.block(kernel.body, args)

    def block(self, block: Block, args: Sequence[Array]) -> list[Array]:
        """Run a block and return its terminator's operands."""
        self.env.update(zip(block.args, args, strict=True))
        for op in block.ops[:-1]:
            self._op(op)
        return [self.env[v] for v in block.terminator.operands]

    def _op(self, op: Op) -> None:
        args = [self.env[v] for v in op.operands]
        if self.memory.watch is not None and op.name in READS | WRITES:
            self.memory.watch.enter(op, self.program)
        if op.name in ELEMENTWISE:
            results: Any = ELEMENTWISE[op.name](op, *args)
        elif op.name in BLOCKS:
            results = BLOCKS[op.name](op, *args)
        elif op.name in BY_ELEMENT_OPS:
            results = BY_ELEMENT_OPS[op.name](op, self.block, *args)
        elif op.name in ATOMIC:
            results = self._atomic(op, *args)
        else:
            results = getattr(self, f"_{op.name}")(op, *args)
        if len(op.results) == 1 and not isinstance(results, list):
            results = [results]
        self.env.update(zip(op.results, results or [], strict=True))

    # -- control --------------------------------------------------------------------------------
    def _program_id(self, op: Op) -> Array:
        return np.array(self.program[op.attrs["axis"]], np.int32)

    def _num_programs(self, op: Op) -> Array:
        return np.array(self.grid[op.attrs["axis"]], np.int32)

    def _for(self, op: Op, lo: Array, hi: Array, step: Array, *inits: Array) -> list[Array]:
        carried = list(inits)
        if lo < hi and step <= 0:
            raise KernelError(f"a loop goes on for ever with a step of {step}", where=op.loc)
        for i in range(int(lo), int(hi), int(step)) if lo < hi else ():
            carried = self.block(op.blocks[0], [np.array(i, lo.dtype), *carried])
        return carried

    def _while(self, op: Op, *inits: Array) -> list[Array]:
        carried = list(inits)
        while True:
            again, *passed = self.block(op.blocks[0], carried)
            if not again:
                return passed
            carried = self.block(op.blocks[1], passed)

    def _if(self, op: Op, condition: Array) -> list[Array]:
        return self.block(op.blocks[0 if condition else 1], [])

    # -- reports --------------------------------------------------------------------------------
    def _print(self, op: Op, *values: Array) -> None:
        sys.stdout.write(printed(op, self.program, values))

    def _assert(self, op: Op, condition: Array) -> None:
        if not condition.all():
            raise assertion_error(op, self.program, int(np.argmin(condition)))

    # -- memory ---------------------------------------------------------------------------------
    def _read(self, op: Op, addresses: Array, mask: Array, other: Array | None) -> Array:
        dtype = dtype_of(op.result.type)
        result = np.zeros(addresses.shape, dtype)
        if other is not None:
            result = np.array(np.broadcast_to(other, addresses.shape))
        try:
            result[mask] = self.memory.read(addresses[mask], dtype)
        except KernelError as error:
            raise KernelError(error.what, where=op.loc) from None
        return result

    def _write(self, op: Op, addresses: Array, mask: Array, values: Array) -> None:
        try:
            self.memory.write(addresses[mask], np.broadcast_to(values, addresses.shape)[mask])
        except KernelError as error:
            raise KernelError(error.what, where=op.loc) from None

    def _load(self, op: Op, pointers: Array, *rest: Array) -> Array:
        mask = rest[0] if op.attrs.get("mask") else np.ones(pointers.shape, np.bool_)
        other = rest[-1] if op.attrs.get("other") else None
        return self._read(op, np.asarray(pointers), np.asarray(mask), other)

    def _store(self, op: Op, pointers: Array, values: Array, *rest: Array) -> None:
        mask = rest[0] if op.attrs.get("mask") else np.ones(pointers.shape, np.bool_)
        self._write(op, np.asarray(pointers), np.asarray(mask), values)

    def _load_tile(self, op: Op, base: Array, *rest: Array) -> Array:
        addresses, mask = tile_addresses(op, op.result.type, base, rest)
        return self._read(op, addresses, mask, rest[-1] if op.attrs.get("other") else None)

    def _store_tile(self, op: Op, values: Array, base: Array, *rest: Array) -> None:
        addresses, mask = tile_addresses(op, op.operands[0].type, base, rest)
        self._write(op, addresses, mask, values)

    def _atomic(self, op: Op, *args: Array) -> Array:
        try:
            return ATOMIC[op.name](self.memory, op, *args)
        except KernelError as error:
            raise KernelError(error.what, where=op.loc) from None
