"""Programs for the timing simulator, and what they ask of the chip, counted without it.

`Program` is a loop of loads, vector ops, products and stores. It is read twice: `kernel()` writes
it as tile IR, `count()` walks the grid in Python. `replay` takes a simulated schedule apart.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from asterope import chips
from asterope.ir import Type
from asterope.runtime import TileKernel, optimise
from asterope.sim import Region, simulate_launch
from ir_builder import Writer

__all__ = [
    "FIXED", "PLACES", "PLAIN", "Access", "Counts", "Program", "changed", "fixed_digest",
    "fixed_results", "plain", "programs", "replay", "simulated", "streams_of", "timed", "warm_up",
    "what_ifs",
]  # fmt: skip

PLACES = {"x0": 1 << 44, "x1": 2 << 44, "y": 3 << 44}
REMEMBERED = 256
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "e4m3": 1, "i8": 1}


# -- chips ----------------------------------------------------------------------------------------
def changed(chip, **figures):
    """Change figures; a dot in a path is written as two underscores."""
    return chips.replace(chip, {name.replace("__", "."): v for name, v in figures.items()})


# Cycles are 1000 ps, HBM moves a byte each picosecond, and nothing happens by itself.
PLAIN = changed(
    chips.maia200(),
    clock_hz=1e9,
    hbm__bandwidth_bytes_per_s=1e12,
    hbm__efficiency=1.0,
    hbm__latency_cycles=500,
    launch_overhead_s=0.0,
    tile__control__issue_cycles=10,
    tile__control__kernel_cycles=0,
    tile__tensor__startup_cycles=7,
    tile__vector__startup_cycles=5,
    tile__dma__latency_cycles=20,
    tile__dma__ingest_bytes_per_cycle=256,
    tile__dma__egress_bytes_per_cycle=128,
    tile__tsram__read_bytes_per_cycle=1 << 30,
    tile__tsram__write_bytes_per_cycle=1 << 30,
    tile__tsram__banks=1 << 30,
    cluster__csram_bytes_per_cycle=2048,
    cluster__csram_latency_cycles=100,
    noc__global_bytes_per_cycle=1024,
    noc__hop_cycles=3,
    noc__multicast=False,
    noc__sram_share=1e-6,
    hbm__access__activate_s=0.0,
    hbm__access__turnaround_s=0.0,
    hbm__access__reads_in_flight_bytes=1 << 50,
)


def plain(**figures):
    """Change figures of the plain chip."""
    return changed(PLAIN, **figures)


def what_ifs():
    """Random chips over Maia 200: clocks, tiles, memory, queues, latencies."""
    return st.fixed_dictionaries(
        {},
        optional={
            "clock_hz": st.sampled_from([0.5e9, 1.7e9, 2e9, 3.3e9]),
            "clusters": st.sampled_from([1, 2, 3, 6]),
            "tiles_per_cluster": st.sampled_from([1, 2, 5, 10]),
            "hbm.bandwidth_bytes_per_s": st.sampled_from([1e11, 1e12, 7e12, 5e13]),
            "hbm.efficiency": st.sampled_from([0.1, 0.56, 0.9, 1.0]),
            "hbm.latency_cycles": st.sampled_from([0, 1, 700, 5000]),
            "hbm.access.channels": st.sampled_from([1, 7, 192]),
            "hbm.access.interleave_bytes": st.sampled_from([32, 256, 8192]),
            "hbm.access.page_bytes": st.sampled_from([64, 1024]),
            "hbm.access.activate_s": st.sampled_from([0.0, 2e-9, 50e-9]),
            "hbm.access.turnaround_s": st.sampled_from([0.0, 25e-9, 1e-6]),
            "hbm.access.write_batch_bytes": st.sampled_from([1, 2048, 1 << 20]),
            "hbm.access.reads_in_flight_bytes": st.sampled_from([1000, 1_260_000, 1 << 40]),
            "noc.multicast": st.booleans(),
            "cluster.csram_bytes": st.sampled_from([512, 4096, 65536, 36_700_160]),
            "cluster.csram_bytes_per_cycle": st.sampled_from([64, 2048, 1 << 16]),
            "cluster.csram_latency_cycles": st.sampled_from([0, 100, 3000]),
            "noc.global_bytes_per_cycle": st.sampled_from([64, 2048, 1 << 16]),
            "noc.sram_share": st.sampled_from([1e-6, 0.25, 0.5, 1.0]),
            "noc.hop_cycles": st.sampled_from([0, 4, 200]),
            "tile.dma.channels": st.sampled_from([1, 2, 3, 8]),
            "tile.dma.ingest_bytes_per_cycle": st.sampled_from([16, 384, 1 << 14]),
            "tile.dma.egress_bytes_per_cycle": st.sampled_from([16, 256, 1 << 14]),
            "tile.dma.latency_cycles": st.sampled_from([0, 20, 900]),
            "tile.tsram.read_bytes_per_cycle": st.sampled_from([32, 2176, 1 << 14]),
            "tile.tsram.write_bytes_per_cycle": st.sampled_from([32, 1088, 1 << 14]),
            "tile.tsram.banks": st.sampled_from([1, 16, 64]),
            "tile.tsram.bank_bytes_per_cycle": st.sampled_from([16, 64, 256]),
            "tile.control.issue_cycles": st.sampled_from([0, 1, 16, 400]),
            "tile.control.kernel_cycles": st.sampled_from([0, 800]),
            "tile.control.max_pre_semaphores": st.sampled_from([1, 2, 5]),
            "tile.control.max_post_semaphores": st.sampled_from([1, 2, 5]),
            "tile.control.queue_depth": st.sampled_from([1, 2, 3, 7, 32]),
            "tile.tensor.startup_cycles": st.sampled_from([0, 32]),
            "tile.vector.startup_cycles": st.sampled_from([0, 16]),
            "launch_overhead_s": st.sampled_from([0.0, 3e-6]),
        },
    ).map(lambda figures: chips.replace(chips.maia200(), figures))


# -- programs -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Access:
    """A block of memory: element offset base + program * per_program + step * per_step + ...

    Of a row `columns_on` columns are on, from the right if `right`.
    """

    array: str
    base: int = 0
    per_program: int = 0
    per_step: int = 0
    row_stride: int = 0
    column_stride: int = 1
    columns_on: int | None = None
    right: bool = False

    def offsets(self, program, step, shape):
        """Return the offsets that are touched, in order."""
        rows, columns = (np.arange(n) for n in shape)
        start = self.base + program * self.per_program + step * self.per_step
        at = start + rows[:, None] * self.row_stride + columns[None, :] * self.column_stride
        return at[:, self.on(shape)].ravel()

    def on(self, shape):
        columns = np.arange(shape[1])
        if self.columns_on is None:
            return columns >= 0
        return columns >= shape[1] - self.columns_on if self.right else columns < self.columns_on


@dataclass
class Counts:
    """What a launch asks for, by hand: bytes, distinct blocks, instructions, products."""

    loaded: int = 0
    stored: int = 0
    unique: dict = field(default_factory=dict)
    num_loads: int = 0
    num_stores: int = 0
    macs: int = 0

    @property
    def unique_bytes(self):
        return sum(self.unique.values())


@dataclass(frozen=True)
class Program:
    """`steps` (an argument) rounds: load, work on the product of the blocks, store, add up."""

    elem: str = "fp32"
    shape: tuple = (16, 16)
    loads: tuple = (Access("x0", per_step=256, row_stride=16),)
    work: tuple = ()
    stores: tuple = ()
    num_stages: int = 2
    vary: int = 0  # program p makes p % vary more steps

    @functools.cached_property
    def tile_kernel(self):
        return _tile_kernel(self)

    def kernel(self):
        """Write the program as tile IR, as a front end would."""
        w = Writer(x0=f"ptr<{self.elem}>", x1=f"ptr<{self.elem}>", y=f"ptr<{self.elem}>", n="i32")
        w.kernel.attrs["num_stages"] = self.num_stages
        pid = w("program_id", to=Type("i32"), axis=0)
        n = w["n"]
        if self.vary:
            n = w("add", n, w("rems", pid, w.const("i32", self.vary)))
        rows = self.shape[0]
        starts = [w.const(Type(self.elem, self.shape), 0.0)]
        if "dot" in self.work:
            starts.append(w.const(Type("fp32", (rows, rows)), 0.0))
        zero, one = w.const("i32", 0), w.const("i32", 1)
        ends = w.for_(zero, n, one, starts, functools.partial(self._step, w, pid))
        last = w.convert(ends[-1], self.elem) if ends[-1].type.elem != self.elem else ends[-1]
        w.store_at(self._at(w, self._last(), pid, zero, last.type.shape), last)
        return w.done()

    def _last(self):
        width = self.shape[0] if "dot" in self.work else self.shape[1]
        return Access("y", base=1 << 20, per_program=self.shape[0] * width, row_stride=width)

    def _step(self, w, pid, step, total, *accs):
        found = [
            w.load_at(self._at(w, a, pid, step, self.shape), mask=self._mask(w, a))
            for a in self.loads
        ]
        block = functools.reduce(functools.partial(w, "fmul"), found)
        for name in self.work:
            if name == "dot":
                turned = Type(self.elem, self.shape[::-1])
                right = w("transpose", block, to=turned, order=(1, 0))
                accs = [w("dot", found[0], right, *accs, to=accs[0].type, order="pairs")]
            else:
                block = w(name, block)
        for access in self.stores:
            pointers = self._at(w, access, pid, step, self.shape)
            w.store_at(pointers, block, mask=self._mask(w, access))
        return [w("fadd", total, block), *accs]

    def _at(self, w, access, pid, step, shape):
        offset = w.const("i32", access.base)
        for value, factor in ((pid, access.per_program), (step, access.per_step)):
            offset = w("add", offset, w("mul", value, w.const("i32", factor)))
        strides = (access.row_stride, access.column_stride)
        return w.pointers(w("addptr", w[access.array], offset), shape, strides)

    def _mask(self, w, access):
        if access.columns_on is None:
            return None
        columns = w.iota(self.shape[1])
        limit = self.shape[1] - access.columns_on if access.right else access.columns_on
        on = w.compare("sge" if access.right else "slt", columns, w.const(columns.type, limit))
        return w.along(on, 1, self.shape)

    def count(self, grid, steps):
        """Walk the grid by hand."""
        counts, size = Counts(), _BYTES[self.elem]
        written = {"y", *(a.array for a in self.stores)}
        for program in range(grid):
            for step in range(steps + (program % self.vary if self.vary else 0)):
                for access in self.loads:
                    at = access.offsets(program, step, self.shape)
                    counts.loaded += at.size * size
                    counts.num_loads += 1
                    own = len(counts.unique) if access.array in written else -1
                    counts.unique[access.array, at.tobytes(), own] = at.size * size
                for access in self.stores:
                    counts.stored += access.offsets(program, step, self.shape).size * size
                    counts.num_stores += 1
                counts.macs += self.work.count("dot") * self.shape[0] ** 2 * self.shape[1]
            last = self._last()
            width = self.shape[0] if "dot" in self.work else self.shape[1]
            counts.stored += last.offsets(program, 0, (self.shape[0], width)).size * size
            counts.num_stores += 1
        return counts


@functools.lru_cache(maxsize=256)
def _tile_kernel(program):
    return TileKernel(optimise(program.kernel()))


def accesses(array, shape, masked=True):
    rows, columns = shape
    strides = st.sampled_from([0, 1, columns, columns + 3, 4 * columns])
    return st.builds(
        Access,
        array=st.just(array),
        base=st.integers(0, 3).map(lambda n: n * columns),
        per_program=st.sampled_from([0, 0, 1, rows * columns, 5 * columns]),
        per_step=st.sampled_from([0, rows * columns, columns]),
        row_stride=strides,
        column_stride=st.sampled_from([1, 1, 1, 2, rows]),
        # A mask that is on everywhere would make another block of the same bytes.
        columns_on=st.none() | st.integers(0, columns - 1) if masked else st.none(),
        right=st.booleans(),
    )


@st.composite
def programs(draw):
    """Random programs: shapes, formats, accesses, work, pipelines."""
    elem = draw(st.sampled_from(["fp32", "bf16", "e4m3"]))
    shape = draw(st.sampled_from([(2, 16), (8, 8), (16, 32), (64, 16), (32, 128)]))
    arrays = draw(st.lists(st.sampled_from(["x0", "x1"]), min_size=1, max_size=3))
    stored = draw(st.lists(st.sampled_from(["y", "y", "x1"]), max_size=1))
    return Program(
        elem=elem,
        shape=shape,
        loads=tuple(draw(accesses(a, shape)) for a in arrays),
        work=tuple(draw(st.lists(st.sampled_from(["fneg", "exp", "dot"]), max_size=3))),
        stores=tuple(draw(accesses(a, shape)) for a in stored),
        num_stages=draw(st.integers(1, 4)),
        vary=draw(st.sampled_from([0, 0, 2, 3])),
    )


# -- running --------------------------------------------------------------------------------------
def timed(kernel, chip, grid=1, args=(), memory=None, *, copied=False, **options):
    """Time a tile IR kernel; `args` are its numbers, `memory` its arrays, where it reads them.

    Arrays that are `copied` come with their extents, so that a time reading may write copies.
    """
    tile = kernel if isinstance(kernel, TileKernel) else TileKernel(optimise(kernel))
    types = [v.type for v in tile.kernel.body.args]
    places = iter([(i + 1) << 44 for i in range(len(types))])
    if memory is not None:
        places = iter([_region(a) if copied else a.ctypes.data for a in memory])
    numbers = iter(args)
    given = [next(places) if t.is_ptr else next(numbers) for t in types]
    grid = (grid, 1, 1) if isinstance(grid, int) else grid
    return simulate_launch(
        tile.time_program, grid, given, chip, has_memory=memory is not None,
        **{"max_events": 1 << 16, **options},
    )  # fmt: skip


def _region(array):
    start = array.ctypes.data
    return Region(start, start, start + array.nbytes)


def simulated(program, chip, grid, steps, **options):
    """Time a `Program`."""
    args = [*PLACES.values(), steps]
    return simulate_launch(
        program.tile_kernel.time_program, (grid, 1, 1), args, chip, has_memory=False,
        **{"max_events": 1 << 16, **options},
    )  # fmt: skip


def warm_up():
    """Compile the event engine, or load it from its cache."""
    simulated(Program(), PLAIN, 1, 1)


def streams_of(time_program, grid, args, num_tiles):
    """Decode what each tile executes, by number: (instruction, numbers awaited, program)."""
    emitter = time_program.code.launch(grid, args)
    tiles = [[] for _ in range(num_tiles)]
    count = grid[0] * grid[1] * grid[2]
    for program in range(count):
        stream = tiles[program % num_tiles]
        records, _ = emitter.emit(program, stride=count)
        base, words, at = len(stream), records.tolist(), 1  # after the mark of a program
        while at < len(words):
            header = words[at]
            numbers, waits = (header >> 32) & 0xFF, header >> 40
            first = at + 1 + numbers
            tokens = {base + token for token in words[first : first + waits] if token >= 0}
            stream.append((header & 0xFFFFFFFF, tokens, program // num_tiles))
            at = first + waits
    return tiles


FIXED = (
    Program(loads=(Access("x0", 0, 256, 64, 16), Access("x1", 0, 0, 256, 16)), vary=3),
    Program("bf16", (32, 32), (Access("x0", 0, 0, 1024, 32),), work=("dot", "exp"), num_stages=3),
    Program("e4m3", (16, 32), (Access("x0", 0, 32, 512, 32, columns_on=20),), work=("fneg",)),
)


def fixed_results():
    """Simulate the fixed programs on two chips, with their events."""
    small = changed(chips.maia200("headline"), cluster__csram_bytes=4096)
    return [simulated(p, chip, 75, 6) for p in FIXED for chip in (chips.maia200(), small)]


def fixed_digest():
    """Digest everything that the fixed programs' results say."""
    return hashlib.sha256(repr(fixed_results()).encode()).hexdigest()


# -- taking a schedule apart ----------------------------------------------------------------------
@dataclass
class _Tile:
    """The events of one tile by number."""

    start: list
    end: list
    engine: list
    waits: list


def _tiles(result):
    tiles = {}
    for event in result.events:
        tiles.setdefault(event.tile, []).append(event)
    for events in tiles.values():
        events.sort(key=lambda e: e.number)
        assert [e.number for e in events] == list(range(len(events))), "numbers have gaps"
        yield (
            events[0].tile,
            _Tile(
                *(
                    [getattr(e, name) for e in events]
                    for name in ("start_ps", "end_ps", "engine", "waits")
                )
            ),
        )


def replay(result, chip, streams, time_program):
    """Check a schedule: every start is the earliest that the rules allow, no rule is broken.

    By the instruction streams of the time program every awaited result was there, and no result was
    overwritten before its readers were done.
    """
    assert len(result.events) == result.instructions
    table, at_once = time_program.instructions, time_program.need.programs_at_once(chip.tile)
    for tile, t in _tiles(result):
        _check_earliest(t, chip, [table[index] for index, _, _ in streams[tile]])
        _check_semaphores(t, streams[tile])
        _check_buffers(t, streams[tile], [i.depth for i in table], at_once)


def _issue_cycles(instruction, control):
    """An instruction and its joins: each waits for so many semaphores, or signals so many."""
    pairs, joins = instruction.semaphores, 0
    for limit in (control.max_pre_semaphores, control.max_post_semaphores):
        joins += max(0, -(-pairs // limit) - 1)
    return control.issue_cycles * (1 + joins)


def _check_earliest(t, chip, executed):
    inside = chip.inside()
    control, cycle = inside.tile.control, 1e12 / inside.clock_hz
    startup_ps = int(np.ceil(inside.tile.tensor.startup_cycles * cycle - 1e-6))
    issued, queues = 0, {}
    for n, engine in enumerate(t.engine):
        queue = queues.setdefault(engine, [])
        if len(queue) >= control.queue_depth:
            issued = max(issued, t.start[queue[-control.queue_depth]])
        issued += int(np.ceil(_issue_cycles(executed[n], control) * cycle - 1e-6))
        fill = startup_ps if engine == "tensor" else 0
        others = [w for w in t.waits[n] if not (engine == t.engine[w] == "tensor")]
        limits = [issued + fill, *(t.end[w] + fill for w in others)]
        if queue:
            limits.append((t.end if engine in ("tensor", "vector") else t.start)[queue[-1]])
            assert t.end[n] >= t.end[queue[-1]], f"{engine} signals out of order at {n}"
        if engine == "load" and len(queue) >= inside.tile.dma.channels:
            limits.append(t.end[queue[-inside.tile.dma.channels]])
        # Of a long program the engine may keep too little in mind to run ahead as far as allowed.
        earliest = max(limits) if n < REMEMBERED else max(*limits, t.start[n])
        assert t.start[n] == earliest, f"{engine} {n} starts at {t.start[n]}, may at {limits}"
        queue.append(n)


def _check_semaphores(t, stream):
    assert len(stream) == len(t.start), "not every emitted instruction was executed"
    for n, (_, tokens, _) in enumerate(stream):
        late = [w for w in tokens if t.end[w] > t.start[n]]
        assert not late, f"{t.engine[n]} {n} starts at {t.start[n]}, before {late} have signalled"


def _check_buffers(t, stream, depths, at_once):
    """Programs take turns in shares of the scratchpad; in each an instruction has its results."""
    readers = [set() for _ in stream]
    for n, (_, tokens, _) in enumerate(stream):
        for w in tokens:
            readers[w].add(n)
    latest, executions = {}, {}
    for n, (index, _, program) in enumerate(stream):
        k = executions[index, program] = executions.get((index, program), -1) + 1
        place = index, program % at_once, k % depths[index]
        before = latest.get(place)
        if before is not None:
            still = [r for r in readers[before] if r < n and t.end[r] > t.start[n]]
            assert not still, f"{t.engine[n]} {n} overwrites what {still} are reading"
        latest[place] = n
