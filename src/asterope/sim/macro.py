"""From tile IR to macro-instructions: the same control flow, with `issue` where engines work.

Every value that an engine produces becomes the semaphore its instruction signals; whoever uses
the value waits for it. Neighbouring vector ops form one instruction, as one kernel on the vector
engine would. Conversions and transpositions of a freshly loaded tile, and conversions of what is
stored, happen in the DMA on the way.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from asterope.compiler import simplify
from asterope.host import TimeCode
from asterope.ir import (
    ATOMICS,
    OPS,
    READS,
    SEM,
    WRITES,
    Block,
    Builder,
    Engine,
    Kernel,
    Op,
    Type,
    Value,
    address_operands,
    clone_block,
    data_of,
    grows_by_one,
    is_pinned,
    masks_of,
    offsets_of,
    pointer_of,
    verify,
)
from asterope.sim import flow
from asterope.sim.access import TileAccess, address_numbers, block_numbers, piece_numbers
from asterope.sim.instructions import Instruction, Product, Transfer, Work
from asterope.sim.origins import TILES, Origins
from asterope.sim.ports import blocks_behind, moved_by, scale_bits
from asterope.sim.runs import run_elements
from asterope.sim.semaphores import with_semaphores
from asterope.sim.slices import control_slice, pattern_values
from asterope.sim.tsram import Need, tsram_need
from asterope.sim.vector_counts import vector_work

__all__ = ["ELSEWHERE", "TimeProgram", "to_macro_instructions"]

ELSEWHERE = -1

_ON_THE_WAY = ("convert", "bitcast", "transpose")
_WIDE_PRODUCT_BITS = 32


@dataclass(frozen=True, eq=False)
class TimeProgram:
    """The time reading of a kernel: control flow in tile IR, and what its instructions are.

    `deciding` maps the parameters through which control flow, addresses or masks are read from
    memory to the source line of such a load; `written` are those through which memory is written.
    `written_back` are those of the latter through which the time reading writes too, because it
    reads there where to go; `queue` is the line of a loop that takes work off others that way. A
    pointer that is no parameter's counts as `ELSEWHERE`.
    """

    kernel: Kernel
    instructions: tuple[Instruction, ...]
    deciding: Mapping[int, str]
    written: frozenset[int]
    written_back: frozenset[int]
    queue: str
    need: Need
    num_stages: int

    @property
    def reads_memory(self) -> str:
        """The source line of a load that decides where the program goes, "" if there is none."""
        return next(iter(self.deciding.values()), "")

    @functools.cached_property
    def code(self) -> TimeCode:
        """Machine code that runs the control flow, made when first needed."""
        return TimeCode(self.kernel)


@dataclass(slots=True, eq=False)
class _Group:
    """Vector ops that will become one instruction."""

    waits: list[Value] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)


_Ready = Value | _Group | None


class MacroLowering:
    """The state of one kernel's translation; `fence` is what all later transfers wait for."""

    def __init__(self, kernel: Kernel) -> None:
        self.source = kernel
        self.patterns = pattern_values(kernel)
        self.uses = kernel.uses()
        self.stages = int(kernel.attrs.get("num_stages", 1))
        self.instructions: list[Instruction] = []
        self.env: dict[Value, Value] = {}
        self.ready: dict[Value, _Ready] = {}
        self.group: _Group | None = None
        self.loop_depth = 0
        self.origins = Origins(kernel)
        needed = control_slice(kernel, self.origins)
        self.control, self.writes, self.queue = needed.values, needed.writes, needed.queue
        self.deciding: dict[int, str] = {}
        self.known_after: dict[Value, tuple[Value, ...]] = {}
        self.always: Value
        self.fence: Value

    def run(self) -> TimeProgram:
        body = Block([Value(a.type, None, a.hint) for a in self.source.body.args])
        self.env.update(zip(self.source.body.args, body.args, strict=True))
        b = Builder(body)
        self.always = self.fence = b.value("signalled", (), SEM)
        self.fill(self.source.body, b)
        b.op("return")
        kernel = simplify(Kernel(self.source.name, list(self.source.params), body))
        verify(kernel)
        need = tsram_need(self.source, self.control)
        return TimeProgram(
            kernel=kernel, instructions=with_semaphores(kernel, self.instructions),
            deciding=self.deciding,
            written=self._indices(self.origins.stored),
            written_back=self._indices(self.origins.written_by(self.writes)),
            queue=self.queue, need=need, num_stages=self.stages,
        )  # fmt: skip

    def _indices(self, parameters: set[Value | None]) -> frozenset[int]:
        return frozenset(map(self._index, parameters))

    def _index(self, parameter: Value | None) -> int:
        return ELSEWHERE if parameter is None else self.source.body.args.index(parameter)

    # -- blocks ---------------------------------------------------------------------------------
    def fill(self, source: Block, b: Builder) -> None:
        """Translate the ops of a block but its terminator."""
        for op in source.ops[:-1]:
            b.loc = op.loc
            self._op(op, b)
        self._close_group(b)

    def _op(self, op: Op, b: Builder) -> None:
        if op.is_control_flow:
            self._close_group(b)
            {"for": flow.for_, "while": flow.while_, "if": flow.if_}[op.name](self, op, b)
            return
        if any(r in self.control for r in op.results) or op in self.writes:
            self._copy(op, b)
        engine = OPS[op.name].engine
        if op.name in ATOMICS:
            self._atomic(op, b)
        elif engine in (Engine.LOAD, Engine.STORE):
            self._transfer(op, b)
        elif any(r not in self.control for r in op.results):
            if engine is Engine.TENSOR:
                self._product(op, b)
            else:
                self._vector(op, b)

    def _copy(self, op: Op, b: Builder) -> None:
        if op.name in READS:
            for origin in self.origins.of(pointer_of(op)):
                self.deciding.setdefault(self._index(origin), op.loc or self.source.name)
        operands = [self.env[v] for v in op.operands]
        blocks = [_without_reports(clone_block(block, dict(self.env))) for block in op.blocks]
        new = b.op(op.name, operands, [r.type for r in op.results], op.attrs, blocks)
        self.env.update(zip(op.results, new.results, strict=True))
        after = tuple(dict.fromkeys(t for v in op.operands for t in self.known_after.get(v, ())))
        if after:
            self.known_after.update(dict.fromkeys(op.results, after))

    # -- readiness ------------------------------------------------------------------------------
    def _ready_of(self, value: Value) -> _Ready:
        return None if value in self.control else self.ready.get(value)

    def _waits(self, values: list[Value], b: Builder) -> list[Value]:
        """Return the semaphores to wait for before using values; ends a group they come from."""
        waits: list[Value] = []
        for value in values:
            if isinstance(self._ready_of(value), _Group):
                self._close_group(b)
            state = self._ready_of(value)
            if isinstance(state, Value) and state not in waits:
                waits.append(state)
        return waits

    def token(self, value: Value, b: Builder) -> Value:
        """Return the semaphore that says when a value is ready."""
        waits = self._waits([value], b)
        return waits[0] if waits else self.always

    def _issue(
        self, b: Builder, engine: Engine, work: Work, label: str, loc: str, num_bytes: int,
        numbers: list[Value], waits: list[Value],
    ) -> Value:  # fmt: skip
        looped = self.loop_depth > 0
        depth = (self.stages if engine is Engine.LOAD else 2) if looped else 1
        self.instructions.append(
            Instruction(
                engine=engine, label=label, loc=loc, work=work, depth=max(1, depth), bytes=num_bytes
            )
        )
        attrs = {"instruction": len(self.instructions) - 1, "numbers": len(numbers)}
        return b.op("issue", [*numbers, *waits], (SEM,), attrs).result

    # -- vector work ----------------------------------------------------------------------------
    def _vector(self, op: Op, b: Builder) -> None:
        if self._is_free(op):
            data = [v for v in op.operands if self._ready_of(v) is not None]
            for result in op.results:
                self.ready[result] = self._ready_of(data[0]) if data else None
            return
        if self.group is None:
            self.group = _Group()
        group = self.group
        for value in op.operands:
            state = self._ready_of(value)
            if isinstance(state, Value) and state not in group.waits:
                group.waits.append(state)
        group.ops.append(op)
        for result in op.results:
            self.ready[result] = group

    def _is_free(self, op: Op) -> bool:
        """Whether an op costs nothing: addressing, a fixed pattern, or done by the DMA."""
        if OPS[op.name].cost == "free" or self.patterns.issuperset(op.results):
            return True
        if op.name not in _ON_THE_WAY:
            return False
        source = op.operands[0].op
        fresh = source is not None and (
            source.name in READS - ATOMICS or (source.name in _ON_THE_WAY and self._is_free(source))
        )
        if fresh and len(self.uses.get(op.operands[0], [])) == 1:
            return True
        users = self.uses.get(op.result, [])
        return (
            op.name == "convert" and bool(users) and all(u.name in WRITES - ATOMICS for u in users)
        )

    def _close_group(self, b: Builder) -> None:
        group, self.group = self.group, None
        if group is None:
            return
        work, lines = vector_work(group.ops)
        num_bytes = max((r.type.num_bytes for op in group.ops for r in op.results), default=0)
        label = " ".join(dict.fromkeys(line.name for line in lines))
        loc = next((line.loc for line in lines if line.loc), "")
        token = self._issue(b, Engine.VECTOR, work, label, loc, num_bytes, [], group.waits)
        read, written = moved_by(group.ops, self.uses, self.control | self.patterns)
        self.instructions[-1] = replace(
            self.instructions[-1], lines=lines, bytes_read=read, bytes_written=written
        )
        for value, state in self.ready.items():
            if state is group:
                self.ready[value] = token

    # -- matrices -------------------------------------------------------------------------------
    def _product(self, op: Op, b: Builder) -> None:
        left, right = op.operands[0].type, op.operands[1].type
        formats = [
            str(op.attrs.get(f"{side}_format", t.elem)) for side, t in (("a", left), ("b", right))
        ]
        *batch, m, codes = left.shape
        work = Product(
            m=m, n=right.shape[-1], k=codes * (2 if op.attrs.get("a_format") == "e2m1" else 1),
            a=formats[0], b=formats[1], batch=math.prod(batch), scale_bits=scale_bits(op),
        )  # fmt: skip
        wide = max(left.bits, right.bits) >= _WIDE_PRODUCT_BITS
        engine = Engine.VECTOR if wide else Engine.TENSOR
        if wide:
            self._close_group(b)
        waits = self._waits(op.operands, b)
        num_bytes = op.result.type.num_bytes
        self.ready[op.result] = self._issue(b, engine, work, op.name, op.loc, num_bytes, [], waits)
        read = blocks_behind(op.operands if wide else [op.operands[2]], self.control)
        self.instructions[-1] = replace(
            self.instructions[-1], bytes_read=sum(v.type.num_bytes for v in read),
            bytes_written=num_bytes,
        )  # fmt: skip

    # -- transfers ------------------------------------------------------------------------------
    def _transfer(self, op: Op, b: Builder) -> None:
        is_store = op.name in WRITES
        value = data_of(op)[0] if is_store else op.result
        gather, space = self.origins.is_gather(op), pointer_of(op).type.space
        shared = not is_store and not gather and space == "hbm" and self._is_constant(op)
        work = Transfer(
            gather=gather, shared=shared, space=space, run_bytes=self._run_bytes(op),
            pinned=shared and is_pinned(op),
        )  # fmt: skip
        numbers = self._numbers(op, work, b)
        waits = self._transfer_waits(op, b)
        label = f"{'store' if is_store else 'load'} {self._array_name(op)}".strip()
        engine = Engine.STORE if is_store else Engine.LOAD
        token = self._issue(b, engine, work, label, op.loc, value.type.num_bytes, numbers, waits)
        if not is_store:
            self._arrives(value, token)

    def _atomic(self, op: Op, b: Builder) -> None:
        """Read what is there, then write what comes of it: the old value is known after both."""
        work = Transfer(
            gather=self.origins.is_gather(op), shared=False, space=pointer_of(op).type.space,
            run_bytes=self._run_bytes(op),
        )  # fmt: skip
        numbers = self._numbers(op, work, b)
        waits, num_bytes = self._transfer_waits(op, b), op.result.type.num_bytes
        label = f"atomic {self._array_name(op)}".strip()
        read = self._issue(b, Engine.LOAD, work, label, op.loc, num_bytes, numbers, waits)
        token = self._issue(b, Engine.STORE, work, label, op.loc, num_bytes, numbers, [read])
        self._arrives(op.result, token)
        if flow.acquires(op):
            self.fence = token

    def _transfer_waits(self, op: Op, b: Builder) -> list[Value]:
        """Return what a transfer waits for: its data, its addresses, and the last fence."""
        waits = self._waits(data_of(op), b)
        after = [t for v in op.operands for t in self.known_after.get(v, ())]
        if self.fence is not self.always:
            after.append(self.fence)
        return list(dict.fromkeys([*waits, *after]))

    def _array_name(self, op: Op) -> str:
        origins = self.origins.of(pointer_of(op))
        return next((o.hint for o in origins if o is not None), "") if len(origins) == 1 else ""

    def _arrives(self, value: Value, token: Value) -> None:
        self.ready[value] = token
        if value in self.control:
            self.known_after[value] = (token,)

    def _is_constant(self, op: Op) -> bool:
        """Whether the memory that is read is surely not written by this kernel."""
        origins, stored = self.origins.of(pointer_of(op)), self.origins.stored
        return None not in origins | stored and origins.isdisjoint(stored)

    def _run_bytes(self, op: Op) -> int:
        offsets = offsets_of(op) if op.name in TILES else []
        return run_elements(offsets, self.origins.sources) * _element_bytes(op)

    def _numbers(self, op: Op, work: Transfer, b: Builder) -> list[Value]:
        """Compute what each execution brings: key and bytes, or bytes of a piece and pieces."""
        size = _element_bytes(op)
        if op.name not in TILES:
            mask = address_operands(op)[1] if op.attrs.get("mask") else None
            on = self.env[mask] if mask is not None else None
            return address_numbers(self.env[pointer_of(op)], on, size, b)
        offsets = offsets_of(op)
        access = TileAccess(
            base=self.env[pointer_of(op)],
            offsets=[self.env[v] for v in offsets],
            masks={d: self.env[v] for d, v in masks_of(op).items()},
            element_bytes=size,
            once=op.name in ATOMICS,
        )
        if not work.gather:
            return block_numbers(access, b, keyed=work.shared)
        regular = [d for d, v in enumerate(offsets) if grows_by_one(v)]
        return piece_numbers(access, regular[0] if regular else None, b)

    # -- control flow ---------------------------------------------------------------------------
    @contextmanager
    def looped(self, op: Op) -> Iterator[None]:
        """Lower the body of a loop, whose loads are as deep as it says or the kernel does."""
        around = self.stages
        self.stages = int(op.attrs.get("num_stages", self.source.attrs.get("num_stages", 1)))
        self.loop_depth += 1
        yield
        self.loop_depth -= 1
        self.stages = around


def _element_bytes(op: Op) -> int:
    return max(1, Type(pointer_of(op).type.pointee).bits // 8)


def _without_reports(block: Block) -> Block:
    """Drop what prints or asserts: the reading of values does."""
    for inner in (block, *(b for op in block.walk() for b in op.blocks)):
        inner.ops = [op for op in inner.ops if op.name not in ("print", "assert")]
    return block


def to_macro_instructions(kernel: Kernel) -> TimeProgram:
    """Lower an optimised kernel to its time reading."""
    return MacroLowering(kernel).run()
