"""What the event engine works on: the chip in its units, the program, everything that changes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

__all__ = [
    "BUSY",
    "CATEGORIES",
    "COUNTERS",
    "ENGINES",
    "FINE_BITS",
    "KEY",
    "LAST",
    "NEVER",
    "READY",
    "RING",
    "SENT",
    "SERIAL",
    "SIZE",
    "SPACES",
    "Machine",
    "Program",
    "State",
    "Table",
    "Trace",
    "compiled",
    "inlined",
    "new_state",
    "new_table",
    "new_trace",
]

compiled = njit(cache=True, _nrt=False)
"""Compile what Python calls of the engine.

Nothing in it allocates, so arrays need no reference counts, whose atomic additions would take two
thirds of its time.
"""
inlined = njit(_nrt=False, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Compile a part of the engine into whatever calls it.

A call would hand over the state's arrays by value, two hundred words on the stack, and with that
take four fifths of the time that is left.
"""

ENGINES = ("load", "store", "tensor", "vector")
SPACES = ("hbm", "csram", "tsram")
CATEGORIES = ("issue", "tensor", "vector", "hbm", "csram", "noc", "tile port", "latency", "tsram")
COUNTERS = (
    "hbm_read",
    "hbm_written",
    "noc",
    "csram",
    "tsram_written",
    "tsram_read",
    "instructions",
)
BUSY = (
    "hbm", "csram", "noc", "ingest", "egress", "tensor", "vector",
    "tsram_read", "tsram_write", "tsram_banks",
)  # fmt: skip

_FIRST_TABLE = 1 << 12
RING = 1 << 14
FINE_BITS = 20
"""Of a picosecond's fraction, in rates of TSRAM: whole numbers are faster."""
NEVER = 1 << 62
KEY, SIZE, SERIAL, READY, SENT = range(5)
"""Columns of a table; the last three again every three for the next clusters."""


class Machine(NamedTuple):
    """The chip as the engine needs it: bytes per picosecond, picoseconds, counts."""

    num_tiles: int
    num_clusters: int
    queue_depth: int
    channels: int
    hbm: float  # data of all channels, no row opened
    row_ps: float  # for each opened row, over all channels
    interleave: int
    page: int
    hbm_channels: int
    turn_ps: float  # for each byte of a direction that takes turns with the other
    turn_bytes: int  # what is moved before it is the other direction's turn
    csram: float
    noc: float
    sram_pace: float  # how much longer a transfer between SRAMs takes while traffic with HBM waits
    multicast: bool
    ingest: float
    egress: float
    hbm_latency_ps: int
    csram_latency_ps: int
    hop_ps: int
    dma_ps: int
    granule: int  # bytes that a gathered piece costs at least
    window: int  # instructions remembered a tile: a power of two
    window_mask: int
    queue_mask: int  # of the queues' rings: a power of two, less one
    cluster_of: Any  # [T]


class Program(NamedTuple):
    """The instructions of a kernel, one row each."""

    engine: Any  # [I] int64
    issue_ps: Any  # [I] int64: of the control processor, with the joins of semaphores
    duration_ps: Any  # [I] int64
    fill_ps: Any  # [I] int64: from operands to first result, while the one before still computes
    hbm_ps: Any  # [I] float64: of HBM's channels for each byte of a block
    read_ps: Any  # [I] float64: for each byte read, what the reads under way allow
    tsram_rate: Any  # [I, 3] int64: of ports and banks, for a byte or all, see FINE_BITS
    depth: Any  # [I] int64: results that one program has at once
    gather: Any  # [I] bool: key and size are the bytes of a piece and the number of pieces
    shared: Any  # [I] bool
    pinned: Any  # [I] int64: which part of CSRAM a shared tile is staged in, see `ring_limit`
    space: Any  # [I] int64: which memory a transfer is with, an index of SPACES
    ring_limit: Any  # [2] int64: bytes of a CSRAM for tiles that pass through, for pinned ones
    at_once: int  # programs that a tile has in its scratchpad at once


_I = np.int64
# A critical path: picoseconds by category, then the trace's row of its last instruction, plus 1.
LAST = len(CATEGORIES)
_PATH = ("i8", (LAST + 1,))
_TILE = np.dtype(
    [(name, _I) for name in (
        "position",  # next word of the stream
        "settled_ps",  # what signalled by then may be forgotten: no queued instruction is older
        "program",  # how many programs were begun
        "share",  # which share of the scratchpad the current program has, below `at_once`
        "base",  # number of the current program's first instruction
        "following",  # number of the next instruction
        "fetch_ps",  # when the control processor is free
        "blocked",  # 1 + the queue that it waits for, 5 if for the window
        "next_channel",  # the load channel used longest ago
        "ingest_free", "egress_free",
    )] + [("control_path", *_PATH)]
)  # fmt: skip
_ENGINE = np.dtype(
    [(name, _I) for name in (
        "head", "tail",  # of the queue
        "free_ps",  # when the next may start
        "last",  # number of the latest started
        "awaited", "awaited_engine",  # what the head was last found waiting for, -1 if unknown
    )] + [("start_path", *_PATH)]
)  # fmt: skip
_ENTRY = np.dtype(
    [(name, _I) for name in ("instruction", "key", "size", "slot", "issued_ps", "end_ps")]
    + [("waits", "i8", (len(ENGINES),)), ("path", *_PATH)]
)
_SLOT = np.dtype([("program", _I), ("next", _I)])
_CLUSTER = np.dtype(
    [(name, _I) for name in (
        "csram_free",
    )]
    # Of tiles that pass through and of pinned ones: oldest serial number still staged, the next
    # one, bytes staged.
    + [(name, "i8", (2,)) for name in ("ring_first", "ring_next", "ring_used")]
)  # fmt: skip
_CHIP = np.dtype(
    [(name, _I) for name in (
        "hbm_free", "hbm_reads_free",
        "hbm_read", "hbm_written",  # bytes moved since it was last the other direction's turn
        "finish",
    )] + [("finish_path", *_PATH)]
)  # fmt: skip
_WINNER = np.dtype([("ps", _I), ("name", _I)])


class State(NamedTuple):
    """Everything that changes; T tiles, E engines, W window, I instructions, C clusters."""

    tile: Any  # [T]
    engine: Any  # [T, E]
    window: Any  # [T, W] the latest instructions
    queue: Any  # [T, E, Q] instruction numbers
    tsram_free: Any  # [T, 3] when the read ports, the write ports and the banks are free
    channel: Any  # [T, channels] numbers of the loads in flight
    slot: Any  # [T, I] the program that wrote last, and which of its result slots is next
    readers: Any  # [T, I, at_once * depth, E] latest reader of each result slot
    ready_ps: Any  # [T, E] when each queue's head may start, NEVER while that is not known
    knockout: Any  # [2 L] of each tile its earliest head, from L on; from 1 on the earlier of two
    cluster: Any  # [C]
    noc_free: Any  # [C, 2, 2] when a cluster's port, in, out, is free: of all, of SRAM traffic
    ring_bytes: Any  # [C, 2, R] bytes of staged tiles by serial number
    chip: Any  # [1]
    counters: Any  # [counters]
    busy_ps: Any  # [busy]


class Table(NamedTuple):
    """Where tiles of memory are staged: an open hash table, never shrunk.

    A row is the key and the size of a tile of memory, size 0 if it is free; then for each cluster
    twice the serial number (plus 1 if it is pinned), the arrival in its CSRAM, and that in the
    tiles that asked for it last.
    """

    rows: Any  # [N, SERIAL + 3 C]
    used: Any  # [1]


class Trace(NamedTuple):
    """Started instructions in order: tile, instruction, start, end, bytes, number, cause, waits.

    The cause is the row, plus 1, of the instruction whose end let this one start, 0 if none did.
    """

    rows: Any  # [N, 7 + E]
    used: Any  # [1]


def new_state(machine: Machine, program: Program) -> State:
    """Return the state before the first instruction."""
    tiles, engines = machine.num_tiles, len(ENGINES)
    clusters = machine.num_clusters
    count = len(program.engine)
    slots = program.at_once * int(program.depth.max(initial=1))
    state = State(
        tile=np.zeros(tiles, _TILE),
        engine=np.zeros((tiles, engines), _ENGINE),
        window=np.zeros((tiles, machine.window), _ENTRY),
        queue=np.zeros((tiles, engines, machine.queue_mask + 1), np.int64),
        tsram_free=np.zeros((tiles, 3), np.int64),
        channel=np.full((tiles, machine.channels), -1, np.int64),
        slot=np.zeros((tiles, count), _SLOT),
        readers=np.full((tiles, count, slots, engines), -1, np.int64),
        ready_ps=np.full((tiles, engines), NEVER, np.int64),
        knockout=np.zeros(2 << (tiles - 1).bit_length(), _WINNER),
        cluster=np.zeros(clusters, _CLUSTER),
        noc_free=np.zeros((clusters, 2, 2), np.int64),
        ring_bytes=np.zeros((clusters, 2, RING), np.int64),
        chip=np.zeros(1, _CHIP),
        counters=np.zeros(len(COUNTERS), np.int64),
        busy_ps=np.zeros(len(BUSY), np.int64),
    )
    state.tile["share"] = -1
    state.engine["last"] = -1
    state.engine["awaited"] = -1
    state.knockout["ps"] = NEVER
    return state


def new_table(clusters: int, size: int = _FIRST_TABLE) -> Table:
    """Return an empty table."""
    rows = np.zeros((size, SERIAL + 3 * clusters), np.int64)
    rows[:, SERIAL::3] = -1
    return Table(rows, np.zeros(1, np.int64))


def new_trace(max_events: int) -> Trace:
    """Return room for a number of started instructions."""
    return Trace(np.zeros((max_events, 7 + len(ENGINES)), np.int64), np.zeros(1, np.int64))
