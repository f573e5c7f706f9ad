"""Tile IR to LLVM: one program as straight code over lazily computed blocks.

Elementwise ops are not executed where they stand: each consumer (a store, a reduction, a dot, a
buffer) opens one loop nest and computes through them, so a chain of them is one vector loop.
A block is put into a buffer when several consumers would compute something costly again, when a
loop carries it, or when memory it was loaded from is about to change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from asterope.errors import UnsupportedError
from asterope.host import (
    atomics,
    by_element,
    loops,
    matmul,
    permute,
    reduction,
    reports,
    scaled,
    scan,
    shapes,
    timing,
)
from asterope.host.arithmetic import ARITHMETIC
from asterope.host.chunks import chunks_of
from asterope.host.evaluate import (
    LAZY,
    constant_value,
    cost_of,
    evaluate,
    lane_preference,
)
from asterope.host.layout import is_row_major, strides_of
from asterope.host.prefetch import asks_of, scalars_first
from asterope.host.runs import note_run, tile_offsets
from asterope.host.scratch import Scratch
from asterope.host.sharing import codes_first, settle_shared, settle_yielded, sharing
from asterope.host.stores import fusible, is_quick_load, store
from asterope.host.tile_choice import Sum, tile_operands
from asterope.host.values import (
    MAX_LANES,
    At,
    Buffer,
    Lane,
    Lazy,
    Memory,
    lanes_for,
    register_kind,
)
from asterope.ir import ATOMICS, Block, Kernel, Op, Roots, Type, Value, is_volatile
from asterope.native import BITS, Function, Val

__all__ = ["Lowering"]

_CHEAP = 3

State = Val | Buffer | Lazy


class Lowering:
    """The state of one program's translation.

    `disjoint` promises that the arrays behind different pointer parameters do not overlap. `needed`
    are, block by block, the values used after the current op, and `later` are the ops after it.
    `shared` and `through` belong to `sharing.py`: blocks that several consumers need, and what of
    them the open nest keeps where. `compact` and `sums` belong to `tile_choice.py`: blocks that
    only tile registers read, and sums of theirs that loops carry. `exponents` are where tile
    registers' products note the smallest one of a left operand.
    """

    def __init__(self, fn: Function, kernel: Kernel, scratch_base: Val, *, disjoint: bool) -> None:
        self.fn = fn
        self.kernel = kernel
        self.disjoint = disjoint
        self.env: dict[Value, State] = {}
        self.memos: list[dict[tuple[object, ...], Lane]] = [{}]
        self.scratch = Scratch()
        self.roots = Roots(kernel)
        self.sites = {op: i for i, op in enumerate(reports.reporting_ops(kernel))}
        self.program: Sequence[Val] = ()
        self.program_index: Val | None = None
        self.record: Val | None = None
        self.stop: Callable[[], None] = fn.leave
        self.grid: Sequence[Val] = ()
        self.stream: Val | None = None
        self.steps: dict[Value, Val] = {}
        self.runs: dict[Buffer, Val] = {}
        self._offsets = tile_offsets(kernel)
        self._base = scratch_base
        self.needed: list[set[Value]] = []
        self.later: Sequence[Op] = ()
        self.shared: set[Value] = set()
        self.through: dict[Value, tuple[Value, Buffer]] = {}
        self.compact = tile_operands(kernel, fn.isa)
        self.sums: dict[Op, Sum] = {}
        self.exponents: dict[Buffer, Val] = {}
        self.held: set[Memory] = set()
        self._around: list[dict[Value, State]] = []

    # -- blocks ---------------------------------------------------------------------------------
    def block(self, block: Block) -> None:
        """Translate all ops of a block but its terminator; keep what the terminator takes."""
        ops = codes_first(scalars_first(block.ops), self.compact)
        last_use = {v: i for i, op in enumerate(ops) for q in op.walk() for v in q.operands}
        outer = set(self.env) - set(block.args)
        self.needed.append(outer)
        for i, op in enumerate(ops[:-1]):
            self.later = ops[i + 1 :]
            alive = {v for v in self.env if v in outer or last_use.get(v, -1) > i}
            self.needed[-1] = alive
            self._op(op)
            created = {r for r in op.results if last_use.get(r, -1) > i}
            self._forget(self.closure(alive | created))
        settle_yielded(self, block.terminator.operands)
        self.needed.pop()

    @contextmanager
    def inner(self) -> Iterator[None]:
        """Translate an inner block; what it did to the values from around it is undone at its end.

        Another branch, or what follows a loop that may not run at all, cannot use a buffer that
        only this block has filled.
        """
        saved = self.env
        self._around.append(saved)
        self.env = dict(saved)
        with self.scope():
            yield
        self._around.pop()
        made = self.memories(set(self.env))
        self.env = saved
        self._release(made - self.memories(set(saved)))

    def closure(self, roots: set[Value], kept: Collection[Value] = ()) -> set[Value]:
        """Return the values that the given ones are still computed from, and themselves.

        What `kept` ones are computed from does not count.
        """
        found: set[Value] = set()
        stack = [v for v in roots if v in self.env]
        while stack:
            value = stack.pop()
            if value in found:
                continue
            found.add(value)
            state = self.env[value]
            if isinstance(state, Lazy) and value not in kept:
                stack += [v for v in state.op.operands if v in self.env]
        return found

    def _forget(self, keep: set[Value]) -> None:
        before = self.memories(set(self.env))
        self.env = {v: s for v, s in self.env.items() if v in keep}
        self._release(before - self.memories(keep))

    def _release(self, memories: set[Memory]) -> None:
        for memory in memories - self.held - self._memories_around():
            self.scratch.release(memory)

    def _memories_around(self) -> set[Memory]:
        """Return what values of the blocks around this one lie in, as they were at its start."""
        states = (s for env in self._around for s in env.values())
        return {s.memory for s in states if isinstance(s, Buffer)}

    @contextmanager
    def pinned(self, places: Iterable[object]) -> Iterator[None]:
        """Keep buffers reserved, whoever else may be done with them."""
        mine = {p.memory for p in places if isinstance(p, Buffer)} - self.held
        self.held |= mine
        yield
        self.held -= mine

    def memories(self, values: set[Value]) -> set[Memory]:
        """Return the scratch memory that values lie in."""
        states = (self.env.get(v) for v in values)
        return {s.memory for s in states if isinstance(s, Buffer)}

    def is_free(self, memory: Memory, kept: Collection[Value] = ()) -> bool:
        """Whether nothing needed after the current op lies in a piece of scratch memory.

        What `kept` values are computed from is not needed. It may be `held` all the same.
        """
        needed = self.memories(self.closure(self.needed[-1], kept))
        return memory not in needed | self._memories_around()

    # -- ops ------------------------------------------------------------------------------------
    def _op(self, op: Op) -> None:
        eager = _EAGER.get(op.name)
        if eager:
            if op.name not in _SHARING:
                settle_shared(self, (v for q in op.walk() for v in q.operands))
            eager(self, op)
        elif is_volatile(op):
            self._load_now(op)
        elif op.results and op.result.type.shape:
            self._delay(op)
        elif op.name == "const":
            self.env[op.result] = constant_value(self, op)
        elif op.name == "load":
            self.env[op.result] = LAZY["load"](self, op, At(())).val
        elif op.name in ("broadcast", "transpose"):
            self.env[op.result] = self.scalar(op.operands[0])
        elif op.name in ARITHMETIC:
            operands = [self.scalar(v) for v in op.operands]
            self.env[op.result] = ARITHMETIC[op.name](op, operands)
        else:
            raise UnsupportedError(f"host code for {op.name} does not exist", where=op.loc)

    def _delay(self, op: Op) -> None:
        """Remember a block op; put its value into a buffer now if computing it later costs more."""
        states = [self.env[v] for v in op.operands]
        lazies = [s for s in states if isinstance(s, Lazy)]
        if op.name == "broadcast" and lazies and lazies[0].cost > _CHEAP:
            self.materialise(op.operands[0])
            lazies = []
        has_load = op.name in ("load", "load_tile") or any(s.has_load for s in lazies)
        cost = cost_of(op) + sum(s.cost for s in lazies)
        self.env[op.result] = Lazy(op, cost, has_load)
        if self.uses.get(op.result, 0) > 1 and cost > _CHEAP and not is_quick_load(self, op):
            self.shared.add(op.result)

    def _load_now(self, op: Op) -> None:
        """Load where the op stands: loads before it stay before it, and so does this one."""
        self.settle_loads()
        self.fn.compiler_fence()
        if op.result.type.shape:
            self.env[op.result] = Lazy(op, cost_of(op), has_load=True)
            self.materialise(op.result)
        else:
            self.env[op.result] = LAZY[op.name](self, op, At(())).val
        self.fn.compiler_fence()

    @property
    def uses(self) -> dict[Value, int]:
        """How often each value is an operand."""
        return self.roots.uses

    def evaluate(self, value: Value, at: At) -> Lane:
        """Compute a chunk of a block."""
        return evaluate(self, value, at)

    def scalar(self, value: Value) -> Val:
        """Return a scalar's value."""
        state = self.env[value]
        assert isinstance(state, Val), f"{value.type} is not a scalar"
        return state

    # -- loop nests -----------------------------------------------------------------------------
    @contextmanager
    def scope(self) -> Iterator[None]:
        """Remember what is computed inside a loop body only there."""
        self.memos.append({})
        try:
            yield
        finally:
            self.memos.pop()

    @contextmanager
    def nest(self, shape: tuple[int, ...], lane: int = -1) -> Iterator[At]:
        """Loop over a shape in chunks along `lane` (the last dimension where not given)."""
        lane = lane if lane >= 0 else len(shape) - 1
        lanes = lanes_for(shape[lane])
        rest = tuple(n for d, n in enumerate(shape) if d != lane)
        with (
            self.loops(rest) as index,
            self.fn.loop(0, shape[lane], lanes) as start,
            self.scope(),
        ):
            yield At((*index[:lane], start, *index[lane:]), lane, lanes)

    def chunks(
        self,
        shape: tuple[int, ...],
        roots: Sequence[Value],
        lane: int = -1,
        *,
        store: Op | None = None,
        most: int = MAX_LANES,
    ) -> Iterator[At]:
        """Loop like `nest` to compute blocks of a shape; yields once for each copy of the body."""
        lane = lane if lane >= 0 else len(shape) - 1
        lanes = lanes_for(shape[lane], most)
        plan = chunks_of(self, shape, roots, lane=lane, lanes=lanes, store=store)
        asks = asks_of(self, roots, plan) if store and len(shape) == 1 else []
        rest = tuple(n for d, n in enumerate(shape) if d != lane)
        with self.loops(rest) as index:
            for at in plan.each(index):
                for ask in asks:
                    ask(at)
                yield at

    @contextmanager
    def loops(self, shape: tuple[int, ...]) -> Iterator[tuple[Val, ...]]:
        """Loop over a shape element by element."""
        with ExitStack() as stack:
            yield tuple(stack.enter_context(self.fn.loop(0, size)) for size in shape)

    # -- buffers --------------------------------------------------------------------------------
    def new_buffer(self, type_: Type, lane: int = -1, *, compact: bool = False) -> Buffer:
        """Reserve a buffer whose elements are neighbours along `lane` (the last dimension)."""
        num_bytes = 2 if compact else max(1, BITS[register_kind(type_)] // 8)
        memory = self.scratch.allocate(math.prod(type_.shape) * num_bytes)
        pointer = self._base.offset(memory.offset)
        return Buffer(memory, pointer, type_, strides_of(type_.shape, lane), compact)

    @contextmanager
    def temporaries(self) -> Iterator[Callable[..., Buffer]]:
        """Give buffers that exist until the end of the block."""
        made: list[Buffer] = []

        def new(type_: Type, lane: int = -1, *, compact: bool = False) -> Buffer:
            made.append(self.new_buffer(type_, lane, compact=compact))
            return made[-1]

        yield new
        for buffer in made:
            self.scratch.release(buffer.memory)

    def fill(self, buffer: Buffer, value: Value, look: Callable[[Val], None] | None = None) -> None:
        """Compute a block into a buffer, and `look` at what is stored."""
        shape = buffer.type.shape
        lane = next((d for d, s in enumerate(buffer.strides) if s == 1 and shape[d] > 1), -1)
        with sharing(self, [value], shape, lane):
            # A vector holds twice as many of 16 bits.
            most = 2 * MAX_LANES if buffer.compact else MAX_LANES
            for at in self.chunks(shape, [value], lane, most=most):
                chunk = self.evaluate(value, at).vector(at.lanes)
                self.fn.store(buffer.encoded(chunk), buffer.address(at.index))
                if look:
                    look(chunk)

    def materialise(self, value: Value, *, row_major: bool = False) -> Buffer:
        """Return a block's buffer, computing it if it has none yet."""
        state = self.env[value]
        if isinstance(state, Buffer) and not (row_major and not is_row_major(state)):
            return state
        self.shared.discard(value)
        lane = -1 if row_major else lane_preference(self, value)
        compact = value in self.compact
        if compact and lane < len(value.type.shape) - 2:
            lane = -1
        buffer = self.new_buffer(value.type, lane, compact=compact)
        self.fill(buffer, value)
        if compact:
            self.exponents[buffer] = self.fn.slot("i32")
            self.fn.store(self.fn.const("i32", -1), self.exponents[buffer])
        self.env[value] = buffer
        if value in self._offsets and len(value.type.shape) == 1:
            note_run(self, value, buffer)
        return buffer

    def settle_loads(self, target: Value | None = None) -> None:
        """Put delayed blocks that read memory and are needed later into buffers.

        With the `target` of a store, only those that it may overwrite.
        """
        later = self.closure(self.needed[-1])
        for value in [v for v in self.env if v in later]:
            state = self.env[value]
            is_delayed = isinstance(state, Lazy) and state.has_load
            if is_delayed and (target is None or not fusible(self, value, target)):
                self.materialise(value)

    def settle(self, values: set[Value]) -> None:
        """Put delayed blocks into buffers before a loop would compute them again and again."""
        for value in values:
            state = self.env.get(value)
            if isinstance(state, Lazy) and (state.cost > _CHEAP or state.has_load):
                self.materialise(value)


def _program_id(low: Lowering, op: Op) -> None:
    source = low.program if op.name == "program_id" else low.grid
    low.env[op.result] = source[op.attrs["axis"]]


# These look after shared blocks themselves; before others such blocks are put into buffers.
_SHARING = ("store", "store_tile", "reduce")

_EAGER: dict[str, Callable[[Lowering, Op], None]] = {
    "store": store,
    "store_tile": store,
    **dict.fromkeys(ATOMICS, atomics.atomic),
    "program_id": _program_id,
    "num_programs": _program_id,
    "for": loops.for_,
    "while": loops.while_,
    "if": loops.if_,
    "reduce": reduction.reduce,
    "scan": scan.scan,
    "map": by_element.map_,
    "gather": permute.gather,
    "histogram": permute.histogram,
    "popcount": reduction.popcount,
    "dot": matmul.dot,
    "dot_scaled": scaled.dot_scaled,
    "reshape": shapes.reshape,
    "join": shapes.join,
    "split": shapes.split,
    "print": reports.print_,
    "assert": reports.assert_,
    "issue": timing.issue,
    "signalled": timing.signalled,
}
