"""Time one launch on a chip, at one of two fidelities."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from asterope import chips
from asterope.chips import Chip
from asterope.errors import ConfigError
from asterope.sim import engine
from asterope.sim import state as states
from asterope.sim.costs import Cost, ceil_ps, cost_of
from asterope.sim.csram import csram_parts
from asterope.sim.energy import energy_parts_j
from asterope.sim.hbm import block_ps, memory_of, read_ps
from asterope.sim.instructions import Transfer
from asterope.sim.lines import MAX_TRACED, line_times
from asterope.sim.macro import TimeProgram
from asterope.sim.ports import tsram_ps
from asterope.sim.power_cap import within_tdp
from asterope.sim.result import Event, Result
from asterope.sim.roofline import flop_of, roofline_ps, vector_ops_of
from asterope.sim.semaphores import num_joins
from asterope.sim.stream import Argument, Streams, streams_of
from asterope.sim.totals import Totals, count_totals
from asterope.sim.tsram import require_fit

__all__ = ["FIDELITIES", "Fidelity", "simulate_launch"]

Fidelity = Literal["roofline", "tile"]
FIDELITIES = get_args(Fidelity)
_REFILL_WORDS = 1 << 12
_PJ = 1e-12


def simulate_launch(
    program: TimeProgram,
    grid: tuple[int, int, int],
    args: Sequence[Argument],
    chip: Chip,
    *,
    fidelity: Fidelity = "tile",
    has_memory: bool = True,
    max_events: int = 0,
    lines: bool = False,
) -> Result:
    """Time a launch. `args` are addresses and numbers, as the host takes them.

    An address may come with the extent of its array: what a kernel writes there and then reads to
    know its way is repeated on a copy. `tile` plays every macro-instruction on a chip whose inside
    is described; `roofline` bounds any chip from below. `max_events` keeps that many executed
    instructions for a trace; `lines` splits the critical path by source line. A launch whose mean
    power would exceed the chip's TDP is played at the highest clock at which it does not, up to the
    one that is set.

    Raises: ChipError if `tile` is asked of a chip without tiles; CapacityError if the program's
    blocks do not fit into TSRAM; KernelError if control flow depends on absent memory.
    """
    if fidelity not in FIDELITIES:
        raise ConfigError(
            f"there is no fidelity {fidelity!r}",
            where="fidelity",
            hint=f"use {' or '.join(FIDELITIES)}",
        )
    streams = streams_of(program, grid, args, has_memory=has_memory)
    totals = count_totals(program, streams)
    limits = roofline_ps(program, totals, chip)
    if fidelity == "roofline":
        return _roofline_result(program, totals, limits, chip)
    traced = max(max_events, MAX_TRACED if lines else 0)

    def play(clock_share: float) -> Result:
        clocked = _clocked(chip, clock_share)
        run, costs = _tile_run(program, streams, clocked, traced)
        result = _tile_result(program, totals, max(limits.values()), clocked, run, costs)
        energy = energy_parts_j(
            chip, totals, costs, result.bytes, time_ps=result.time_ps, clock_share=clock_share
        )
        return dataclasses.replace(
            result,
            energy_j=sum(energy.values()),
            energy_parts_j=energy,
            clock_share=clock_share,
            events=_events(program, run, max_events),
            lines=line_times(program.instructions, run.trace, clocked.inside()) if lines else (),
        )

    return within_tdp(chip, play(chip.power.set_clock), play)


def _clocked(chip: Chip, share: float) -> Chip:
    """Return a chip with a lower clock; what is per cycle follows, HBM and launches do not."""
    if share == 1 or chip.clock_hz is None:
        return chip
    latency = math.ceil(round(chip.inside().hbm_latency_cycles * share, 6))
    lower = {"clock_hz": share * chip.clock_hz, "hbm.latency_cycles": latency}
    return chips.replace(chip, lower)


def _overhead_ps(chip: Chip) -> int:
    return ceil_ps(chip.launch_overhead_s)


def _roofline_result(
    program: TimeProgram, totals: Totals, limits: dict[str, int], chip: Chip
) -> Result:
    bound, time_ps = max(limits.items(), key=lambda item: item[1])
    tdp = chip.power.tdp_w
    return Result(
        kernel=program.kernel.name,
        chip=f"{chip.name}:{chip.profile}",
        fidelity="roofline",
        time_ps=time_ps,
        breakdown_ps={bound: time_ps},
        bound_by=bound,
        occupancy={name: ps / time_ps if time_ps else 0.0 for name, ps in limits.items()},
        bytes={"hbm": totals.hbm_bytes},
        asked_bytes=totals.loaded + totals.stored,
        flop=flop_of(program, totals, chip),
        vector_ops=vector_ops_of(program, totals),
        instructions=sum(totals.executions),
        # Without coefficients all that is known is the limit: TDP for as long as it runs.
        energy_j=tdp * time_ps * _PJ if tdp is not None else None,
        energy_parts_j={"tdp": tdp * time_ps * _PJ} if tdp is not None else {},
        roofline_ps=time_ps,
        tsram_bytes=program.need.num_bytes,
        clock_hz=chip.clock_hz,
    )


def machine_of(chip: Chip) -> states.Machine:
    """Return the chip as the event engine needs it."""
    inside = chip.inside()
    tile, cluster, noc = inside.tile, inside.cluster, inside.noc
    per_ps = inside.clock_hz * _PJ

    def cycles(count: float) -> int:
        return ceil_ps(count / inside.clock_hz)

    window = 256
    while window < 16 * tile.control.queue_depth:
        window *= 2
    return states.Machine(
        num_tiles=inside.num_tiles,
        num_clusters=inside.clusters,
        queue_depth=tile.control.queue_depth,
        channels=tile.dma.channels,
        **memory_of(chip),
        csram=cluster.csram_bytes_per_cycle * per_ps,
        noc=noc.global_bytes_per_cycle * per_ps,
        sram_pace=1 / noc.sram_share,
        multicast=noc.multicast,
        ingest=tile.dma.ingest_bytes_per_cycle * per_ps,
        egress=tile.dma.egress_bytes_per_cycle * per_ps,
        hbm_latency_ps=cycles(inside.hbm_latency_cycles),
        csram_latency_ps=cycles(cluster.csram_latency_cycles),
        hop_ps=cycles(noc.hop_cycles),
        dma_ps=cycles(tile.dma.latency_cycles),
        granule=tile.dma.gather_granule_bytes,
        window=window,
        window_mask=window - 1,
        queue_mask=(1 << (tile.control.queue_depth - 1).bit_length()) - 1,
        cluster_of=np.arange(inside.num_tiles) // inside.tiles_per_cluster,
    )


def _engine_program(program: TimeProgram, costs: Sequence[Cost], chip: Chip) -> states.Program:
    inside = chip.inside()
    table, control = program.instructions, inside.tile.control
    issues = [1 + num_joins(i.semaphores, control) for i in table]
    issue_s = control.issue_cycles / inside.clock_hz
    transfers = [i.work if isinstance(i.work, Transfer) else None for i in table]
    return states.Program(
        engine=np.array([states.ENGINES.index(i.engine.value) for i in table], np.int64),
        issue_ps=np.array([ceil_ps(n * issue_s) for n in issues], np.int64),
        duration_ps=np.array([c.duration_ps for c in costs], np.int64),
        fill_ps=np.array([c.fill_ps for c in costs], np.int64),
        hbm_ps=np.array([block_ps(t, chip) for t in transfers], np.float64),
        read_ps=np.array([read_ps(t, chip) for t in transfers], np.float64),
        tsram_rate=_rates([tsram_ps(i, c, inside) for i, c in zip(table, costs, strict=True)]),
        depth=np.array([i.depth for i in table], np.int64),
        gather=np.array([bool(t and t.gather) for t in transfers], np.bool_),
        shared=np.array([bool(t and t.shared) for t in transfers], np.bool_),
        pinned=np.array([bool(t and t.pinned) for t in transfers], np.int64),
        space=np.array([states.SPACES.index(t.space) if t else 0 for t in transfers], np.int64),
        ring_limit=csram_parts(inside.cluster.csram_bytes, [i.work for i in table]),
        at_once=program.need.programs_at_once(inside.tile),
    )


def _rates(ps: Sequence[tuple[float, float, float]]) -> npt.NDArray[np.int64]:
    fine = np.array(ps, np.float64).reshape(len(ps), 3) * (1 << states.FINE_BITS)
    return np.ceil(fine - 1e-6).astype(np.int64)


@dataclass(slots=True)
class _Play:
    """One run of the event engine."""

    state: states.State
    machine: states.Machine
    trace: states.Trace


def _play(
    program: states.Program, machine: states.Machine, streams: Streams, max_events: int
) -> _Play:
    state = states.new_state(machine, program)
    table = states.new_table(len(state.cluster))
    trace = states.new_trace(max_events)
    feed = _Feed.of(streams, machine.num_tiles)
    while True:
        stopped = engine.play(
            state, machine, program, table, feed.words, feed.fill, feed.ended, trace
        )
        if stopped == engine.FINISHED:
            left = state.engine["tail"] - state.engine["head"]
            assert not left.any(), "an instruction was never played"
            return _Play(state, machine, trace)
        if stopped == machine.num_tiles:
            larger = states.new_table(len(state.cluster), 2 * len(table.rows))
            engine.grow(state, table, larger)
            table = larger
            continue
        feed.refill(stopped)
        state.tile[stopped]["position"] = 0


@dataclass(slots=True)
class _Feed:
    """What each tile reads of its stream: words, how many there are, whether they are the last."""

    streams: Streams
    words: npt.NDArray[np.int64]
    fill: npt.NDArray[np.int64]
    ended: npt.NDArray[np.bool_]
    following: list[int]

    @classmethod
    def of(cls, streams: Streams, tiles: int) -> _Feed:
        """Return the beginnings of all streams."""
        words = np.zeros((tiles, 2 * _REFILL_WORDS), np.int64)
        fill, ended = np.zeros(tiles, np.int64), np.zeros(tiles, np.bool_)
        feed = cls(streams, words, fill, ended, list(range(tiles)))
        for tile in range(tiles):
            feed.refill(tile)
        return feed

    def refill(self, tile: int) -> None:
        """Put the next words of a tile's stream into place of those that it has read."""
        first, tiles = self.following[tile], len(self.words)
        batch, self.following[tile] = self.streams.emit(first, tiles, _REFILL_WORDS)
        if len(batch) > self.words.shape[1]:
            wider = np.zeros((tiles, 2 * len(batch)), np.int64)
            wider[:, : self.words.shape[1]] = self.words
            self.words = wider
        self.words[tile, : len(batch)] = batch
        self.fill[tile] = len(batch)
        self.ended[tile] = self.following[tile] >= self.streams.num_programs


def _tile_run(
    program: TimeProgram, streams: Streams, chip: Chip, num_traced: int
) -> tuple[_Play, Sequence[Cost]]:
    inside = chip.inside()
    require_fit(
        program.need, inside.tile.tsram.capacity_bytes, program.kernel.name, program.num_stages
    )
    costs = [cost_of(i, chip) for i in program.instructions]
    engine_program = _engine_program(program, costs, chip)
    return _play(engine_program, machine_of(chip), streams, num_traced), costs


def _tile_result(
    program: TimeProgram, totals: Totals, bound_ps: int, chip: Chip, run: _Play,
    costs: Sequence[Cost],
) -> Result:  # fmt: skip
    inside, state = chip.inside(), run.state
    overhead_ps = _overhead_ps(chip) + ceil_ps(inside.tile.control.kernel_cycles / inside.clock_hz)
    time_ps = int(state.chip[0]["finish"]) + overhead_ps
    breakdown = {
        name: int(ps)
        for name, ps in zip(states.CATEGORIES, state.chip[0]["finish_path"], strict=False)
        if ps
    }
    if overhead_ps:
        breakdown["launch"] = overhead_ps
    return Result(
        kernel=program.kernel.name,
        chip=f"{chip.name}:{chip.profile}",
        fidelity="tile",
        time_ps=time_ps,
        breakdown_ps=breakdown,
        bound_by=max(breakdown, key=lambda name: breakdown[name]) if breakdown else "launch",
        occupancy=_occupancy(state, run.machine, time_ps),
        bytes=_moved(state, totals, costs),
        asked_bytes=totals.loaded + totals.stored,
        flop=flop_of(program, totals, chip),
        vector_ops=vector_ops_of(program, totals),
        instructions=int(state.counters[states.COUNTERS.index("instructions")]),
        energy_j=None,
        roofline_ps=bound_ps,
        tsram_bytes=program.need.num_bytes,
        clock_hz=chip.clock_hz,
    )


def _moved(state: states.State, totals: Totals, costs: Sequence[Cost]) -> dict[str, int]:
    """Return the bytes through each memory and network; TSRAM counts operands of the TTU too."""
    counted = dict(zip(states.COUNTERS, (int(c) for c in state.counters), strict=True))
    operands = sum(n * c.tsram_bytes for n, c in zip(totals.executions, costs, strict=True))
    return {
        "hbm": counted["hbm_read"] + counted["hbm_written"],
        "hbm_read": counted["hbm_read"],
        "hbm_written": counted["hbm_written"],
        "noc": counted["noc"],
        "csram": counted["csram"],
        "tsram": counted["tsram_written"] + counted["tsram_read"] + operands,
        "tsram_dma_written": counted["tsram_written"],
        "tsram_dma_read": counted["tsram_read"],
    }


def _occupancy(state: states.State, machine: states.Machine, time_ps: int) -> dict[str, float]:
    clusters = len(state.cluster)
    shared = {"hbm": 1, "csram": clusters, "noc": 2 * clusters}
    return {
        name: int(busy) / (shared.get(name, machine.num_tiles) * time_ps) if time_ps else 0.0
        for name, busy in zip(states.BUSY, state.busy_ps, strict=True)
    }


def _events(program: TimeProgram, run: _Play, max_events: int) -> tuple[Event, ...]:
    used = min(int(run.trace.used[0]), max_events)
    events = []
    for row in run.trace.rows[:used].tolist():
        tile, index, start, end, size, number, cause, *waits = row
        instruction = program.instructions[index]
        events.append(
            Event(
                tile=tile, engine=instruction.engine.value, label=instruction.label,
                loc=instruction.loc, number=number, start_ps=start, end_ps=end, bytes=size,
                waits=tuple(w for w in waits if w >= 0), cause=cause - 1,
            )
        )  # fmt: skip
    return tuple(events)
