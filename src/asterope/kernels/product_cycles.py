"""What a matrix product costs on a chip, by the blocks it is cut into: cycles in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from asterope.chips import Chip, Inside
from asterope.kernels.blocks import Blocks, Choice
from asterope.kernels.expected_blocks import expected_blocks
from asterope.sim import num_joins, pinnable_bytes

__all__ = ["ProductCycles"]

_SPLITS = (1, 2, 4, 8, 16, 32)
# The share of tiles that come too late to receive a block together with others.
_LATE = 1 / 8
# How late HBM's queue forms: at full use loads wait for all of a step's, at half for a sixteenth.
_QUEUES = 4


@dataclass(frozen=True, slots=True)
class ProductCycles:
    """A product on the chip, in bytes and cycles: what a choice of blocks costs."""

    m: int
    n: int
    k: int
    a_bytes: float
    b_bytes: float
    inside: Inside
    depth_per_cycle: int
    hbm_bytes_per_cycle: float
    scale_group: int
    launch_cycles: float
    experts: int
    scale_step: int

    @classmethod
    def of(cls, chip: Chip, choice: Choice) -> ProductCycles:
        """Return a product on a chip whose inside is described.

        Raises: ChipError if it is not.
        """
        inside = chip.inside()
        depths = inside.tile.tensor.depth_per_cycle
        rate = {4: "fp4", 8: "fp8"}.get(max(choice.a_bits, choice.b_bits), "bf16")
        return cls(
            choice.m, choice.n, choice.k, choice.a_bits / 8, choice.b_bits / 8, inside,
            depths.get(rate) or min(depths.values()),
            chip.hbm_effective_bytes_per_s / inside.clock_hz, choice.scale_group,
            chip.launch_overhead_s * inside.clock_hz + inside.tile.control.kernel_cycles,
            choice.experts, choice.scale_step,
        )  # fmt: skip

    def splits(self, blocks: Blocks) -> Iterator[Blocks]:
        """Return the blocks with every split of K that gives idle tiles work."""
        outputs, steps = self._outputs(blocks), math.ceil(self.k / blocks.k)
        for split in _SPLITS:
            if split == 1 or (split <= steps and outputs * split < 2 * self.inside.num_tiles):
                yield replace(blocks, split=split)

    def cycles(self, blocks: Blocks) -> int:
        """Estimate the cycles of the whole product: waves of programs, one on each tile.

        Before all of them the first operands are awaited; after them the last step is computed and
        its result leaves. Where two programs do not fit beside each other, each wave waits for
        both. A wave reads the rows of x that no wave before it had, or all, if they do not stay in
        CSRAM; so it is with the weight, which each group of rows goes through.
        """
        time = sum(count * max(terms.values()) for count, terms in self._waves(blocks))
        return round(time + self._around_cycles(blocks))

    def limits(self, blocks: Blocks) -> dict[str, float]:
        """Return the cycles that each part of the chip alone would take, and those around waves."""
        found: dict[str, float] = {}
        for count, terms in self._waves(blocks):
            for name, cycles in terms.items():
                found[name] = found.get(name, 0.0) + count * cycles
        return {**found, "ends": self._around_cycles(blocks)}

    def _num_waves(self, blocks: Blocks) -> int:
        return math.ceil(self.num_programs(blocks) / self.inside.num_tiles)

    def _around_cycles(self, blocks: Blocks) -> float:
        """Return what comes before and after waves."""
        overlaps = self.share_of_scratchpad(blocks) <= 1 / 2
        ends = self._ends_cycles(blocks) * (1 if overlaps else self._num_waves(blocks))
        return ends + self._adding_cycles(blocks) + self._empty_cycles(blocks)

    def _waves(self, blocks: Blocks) -> Iterator[tuple[int, dict[str, float]]]:
        """Return how many waves are alike, and what each takes."""
        tiles, waves = self.inside.num_tiles, self._num_waves(blocks)
        left = self.num_programs(blocks) % tiles
        rows, columns = self._fresh_waves(blocks, waves)
        both = max(1, rows + columns - waves)
        counts = {
            (True, True): both, (True, False): rows - both, (False, True): columns - both,
            (False, False): waves - rows - columns + both,
        }  # fmt: skip
        if left:
            last = (rows == waves, columns == waves)
            counts[last] -= 1
            yield 1, self._wave_terms(blocks, left, *last)
        for reads, count in counts.items():
            if count:
                yield count, self._wave_terms(blocks, tiles, *reads)

    def stays(self, blocks: Blocks) -> tuple[bool, bool]:
        """Return whether x's rows and the weight, once read, stay in CSRAM for later waves."""
        if blocks.parts(self.k) > 1:
            return False, False
        row_bytes, _ = self._wave_bytes(blocks, self.inside.num_tiles)
        weight_bytes = self.n * (self.k * self.b_bytes + self._scale_bytes(blocks))
        room = self.inside.cluster.csram_bytes
        pinned = pinnable_bytes(room)
        rows, weight = 2 * row_bytes < room, weight_bytes + 2 * row_bytes < room
        if blocks.pinned == "x":
            return row_bytes <= pinned, False
        if blocks.pinned == "w":
            return 2 * row_bytes < room - pinned, weight_bytes <= pinned
        return rows, weight and not self.experts

    def _fresh_waves(self, blocks: Blocks, waves: int) -> tuple[int, int]:
        """Return how many waves read rows of x from HBM, and how many read of the weight.

        In the usual placement a weight that stays is counted as if it did not: the estimate is an
        upper bound then, and a placement that seems faster is played beside it.
        """
        rows_stay, weight_stays = self.stays(blocks)
        groups = math.ceil(self._row_blocks(blocks) / blocks.group)
        rows = min(waves, groups) if rows_stay else waves
        counted = weight_stays and blocks.is_placed
        return rows, math.ceil(waves / groups) if counted else waves

    def _wave_terms(
        self, blocks: Blocks, num_programs: int, reads_rows: bool, reads_columns: bool
    ) -> dict[str, float]:
        """Return what working, waiting for loads, and bringing what is shared take, each alone."""
        row_bytes, column_bytes = self._wave_bytes(blocks, num_programs)
        read = (column_bytes * reads_columns + row_bytes * reads_rows) / self.hbm_bytes_per_cycle
        work = self._work_terms(blocks)
        waits = self._wait_cycles(blocks, read, max(work.values()))
        brought = self._noc_cycles(blocks, reads_rows, reads_columns)
        return {**work, "latency": waits, "hbm": read, "noc": brought}

    def _ends_cycles(self, blocks: Blocks) -> float:
        """Return how long the first operands take to come, and the last sums to go."""
        dma = self.inside.tile.dma
        step_bytes = (blocks.m * self.a_bytes + blocks.n * self.b_bytes) * min(blocks.k, self.k)
        first = 2.0 * self.inside.hbm_latency_cycles
        first += max(step_bytes / dma.ingest_bytes_per_cycle, self._panel_cycles(blocks))
        last = self._step_cycles(blocks) + 2 * blocks.m * blocks.n / dma.egress_bytes_per_cycle
        return first + last

    def _panel_cycles(self, blocks: Blocks) -> float:
        """Return how long the panels of all tiles are under way before any walk begins."""
        if blocks.stationary == "y":
            return 0.0
        is_x = blocks.stationary == "x"
        row_bytes, column_bytes = self._wave_bytes(
            blocks, min(self.num_programs(blocks), self.inside.num_tiles)
        )
        read = (row_bytes if is_x else column_bytes) / self.hbm_bytes_per_cycle
        return max(read, self._noc_cycles(blocks, is_x, not is_x))

    def num_programs(self, blocks: Blocks) -> int:
        """Return how many programs there are."""
        return self._outputs(blocks) * blocks.parts(self.k)

    def _outputs(self, blocks: Blocks) -> int:
        return self._row_blocks(blocks) * math.ceil(self.n / blocks.span_n)

    def _row_blocks(self, blocks: Blocks) -> int:
        if not self.experts:
            return math.ceil(self.m / blocks.span_m)
        return math.ceil(expected_blocks(self.m, self.experts, blocks.m))

    def _weights(self, blocks: Blocks, rows: int) -> int:
        """Return how many weights so many neighbouring blocks of rows are multiplied by."""
        if not self.experts:
            return 1
        used = expected_blocks(self.m, self.experts, self.m)
        return math.ceil(rows * used / self._row_blocks(blocks))

    @property
    def rows_together(self) -> int:
        """How many rows one weight is multiplied by: of experts, those of one that has many."""
        if not self.experts:
            return self.m
        mean = self.m / self.experts
        return min(self.m, math.ceil(mean + 3 * math.sqrt(mean)))

    def _steps(self, blocks: Blocks) -> int:
        """Return how many blocks a program multiplies, along K or along its walk."""
        return self._blocks_of_k(blocks) * blocks.walk

    def _blocks_of_k(self, blocks: Blocks) -> int:
        return math.ceil(min(blocks.part_depth(self.k), self.k) / blocks.k)

    def _depth(self, blocks: Blocks) -> int:
        """Return how much of K a program loads: whole blocks, but no more than there is of one."""
        if blocks.stationary != "y":
            return self.k
        return self._steps(blocks) * blocks.k

    def _adding_cycles(self, blocks: Blocks) -> float:
        """Return what a split costs: fp32 sums to memory and back, by a kernel of its own."""
        parts = blocks.parts(self.k)
        if parts == 1:
            return 0.0
        moved = (2 * 4 * parts + 2) * self.m * self.n
        turns = math.ceil(parts / self.inside.tile.dma.channels)
        waits = turns * (self.inside.hbm_latency_cycles + self.inside.tile.dma.latency_cycles)
        return self.launch_cycles + waits + moved / self.hbm_bytes_per_cycle

    @property
    def full_run_of_scales(self) -> int:
        """The depth whose scales of one row are all that is read for them; 0 without scales."""
        return self.inside.tile.dma.gather_granule_bytes * self.scale_group

    def preference(self, blocks: Blocks) -> tuple[int, int]:
        """Return what to choose the least of where cycles are equal.

        Of a product that waits for HBM, small blocks spread more evenly over the tiles; of others,
        large ones ask less of what is between.
        """
        together = min(self.num_programs(blocks), self.inside.num_tiles)
        terms, work = self._wave_terms(blocks, together, True, True), self._work_terms(blocks)
        waits = max(terms.values()) > max(work.values())
        return (-blocks.m, blocks.n) if waits else (-blocks.m * blocks.n, 0)

    def share_of_scratchpad(self, blocks: Blocks) -> float:
        """Return what a program takes of TSRAM: fp32 sums twice, operands once for each stage.

        An operand that stays is there once; beside a walk there is room for scales and for a
        weight that is widened.
        """
        sums = 2 * 4 * blocks.m * blocks.n
        a_stages, b_stages = (1 if blocks.stationary == o else blocks.stages for o in "xw")
        per_k = a_stages * blocks.m * self.a_bytes + b_stages * blocks.n * self.b_bytes
        if blocks.stationary != "y" and self.scale_group:
            per_k += (a_stages * blocks.m + b_stages * blocks.n) / self.scale_group
        elif blocks.stationary != "y" and self.b_bytes < self.a_bytes:
            per_k += blocks.n * self.a_bytes
        return (sums + per_k * blocks.k) / self.inside.tile.tsram.capacity_bytes

    def _work_terms(self, blocks: Blocks) -> dict[str, float]:
        """Return what computing a program, taking in its operands, and issuing take."""
        steps = self._steps(blocks)
        per_k = blocks.span_m * self.a_bytes + blocks.span_n * self.b_bytes
        operands = per_k * self._depth(blocks)
        unit = self.inside.tile.tensor
        return {
            "tensor": steps * self._step_cycles(blocks) + unit.startup_cycles,
            "tile port": operands / self.inside.tile.dma.ingest_bytes_per_cycle,
            "csram": self._csram_cycles(blocks),
            "issue": float(steps * self._issue_cycles(blocks)),
        }

    def _wait_cycles(self, blocks: Blocks, read: float, work: float) -> float:
        """Return how long a program is at waiting for loads, as many in flight as there may be.

        A load comes after the latency, and after what all tiles ask for in the same step. A step
        has a buffer once another is done with it; programs of few steps have buffers of the next
        ones as well. Each load has a channel of its own. A program of experts first reads whose
        rows it has.
        """
        inside, steps = self.inside, max(self._steps(blocks), 1)
        queue = read / steps * min(1.0, read / work) ** _QUEUES
        loaded = inside.hbm_latency_cycles + inside.tile.dma.latency_cycles + queue
        buffers = blocks.stages
        beside = self._beside(blocks)
        if steps <= buffers:
            buffers = max(buffers, beside * steps)
        buffer_cycles = (loaded + self._step_cycles(blocks)) / buffers + self._issue_cycles(blocks)
        waits = steps * max(buffer_cycles, loaded * self._loads(blocks) / inside.tile.dma.channels)
        return waits + (loaded / beside if self.experts else 0.0)

    def _beside(self, blocks: Blocks) -> int:
        """Return how many programs a tile has at once: what fits, up to one a DMA channel."""
        programs = math.ceil(self.num_programs(blocks) / self.inside.num_tiles)
        room = int(1 / self.share_of_scratchpad(blocks))
        return max(1, min(programs, room, self.inside.tile.dma.channels))

    def _empty_cycles(self, blocks: Blocks) -> float:
        """Return how long a tile is at programs of rows that no expert has.

        A grid has a program for each block of rows that there may be, however rows are spread. Each
        reads where experts begin before it knows that it has nothing to do.
        """
        if not self.experts:
            return 0.0
        most = min(self.m, self.experts) + max(self.m - self.experts, 0) // blocks.m
        empty = max(0, most - self._row_blocks(blocks)) * math.ceil(self.n / blocks.n)
        asked = self.inside.hbm_latency_cycles + self.inside.tile.dma.latency_cycles
        return empty / self.inside.num_tiles * asked / self._beside(blocks)

    def _step_cycles(self, blocks: Blocks) -> float:
        """Return how long the tensor unit is at one block of K, or reads operands and sums."""
        unit, tsram = self.inside.tile.tensor, self.inside.tile.tsram
        squares = math.ceil(blocks.m / unit.rows) * math.ceil(blocks.n / unit.cols)
        deep = math.ceil(blocks.k / self.depth_per_cycle)
        scaled = sum(size <= 1 for size in (self.a_bytes, self.b_bytes)) if self.scale_group else 0
        scales = scaled / self.scale_group if scaled else 0.0
        feed = unit.rows * self.depth_per_cycle * (self.a_bytes + self.b_bytes + scales)
        read = deep * feed + 4 * unit.rows * unit.cols
        return squares * max(float(deep), read / tsram.read_bytes_per_cycle)

    def _issue_cycles(self, blocks: Blocks) -> int:
        """Return how long it takes to start a step: its loads, and a product with its joins."""
        control, issued = self.inside.tile.control, self._loads(blocks) + 1
        return (issued + num_joins(issued, control)) * control.issue_cycles

    def _loads(self, blocks: Blocks) -> int:
        """Return how many loads a step has: operands, and scales of those of at most a byte."""
        if blocks.stationary != "y":
            moving = self.b_bytes if blocks.stationary == "x" else self.a_bytes
            return 2 if self.scale_group and moving <= 1 else 1
        if not self.scale_group and not self.scale_step:
            return 2
        loads = 3 if self.a_bytes > 1 else 4
        return loads * math.ceil(blocks.k / self.scale_step) if self.scale_step else loads

    def _csram_cycles(self, blocks: Blocks) -> float:
        """Return how long a cluster's SRAM is at the operands of the programs of its tiles.

        Tiles that work on the same rows or columns receive these together, unless one is late.
        """
        busy, rows, columns = self._in_cluster(blocks)
        rows_read, columns_read = (each + _LATE * (busy - each) for each in (rows, columns))
        read = self._cluster_bytes(blocks, rows_read, columns_read)
        return read / self.inside.cluster.csram_bytes_per_cycle

    def _noc_cycles(self, blocks: Blocks, reads_rows: bool, reads_columns: bool) -> float:
        """Return how long a cluster's port is at what its CSRAM does not have yet."""
        _, rows, columns = self._in_cluster(blocks)
        brought = self._cluster_bytes(blocks, rows * reads_rows, columns * reads_columns)
        return brought / self.inside.noc.global_bytes_per_cycle

    def _in_cluster(self, blocks: Blocks) -> tuple[int, int, int]:
        """Return how many tiles of a cluster are busy, at how many rows and columns of blocks."""
        inside = self.inside
        in_cluster = math.ceil(self.num_programs(blocks) / inside.clusters)
        busy = min(in_cluster, inside.tiles_per_cluster)
        rows = min(blocks.group, self._row_blocks(blocks), busy)
        return busy, rows, math.ceil(busy / rows) * self._weights(blocks, rows)

    def _cluster_bytes(self, blocks: Blocks, rows: float, columns: float) -> float:
        per_k = rows * blocks.span_m * self.a_bytes + columns * blocks.span_n * self.b_bytes
        return per_k * self._depth(blocks)

    def _wave_bytes(self, blocks: Blocks, num_programs: int) -> tuple[float, float]:
        """Return what programs that run at once read of x and of the weight.

        They are some rows of blocks by some columns, of one part of K or of several.
        """
        parts = max(1.0, num_programs / self._outputs(blocks))
        num_programs = min(num_programs, self._outputs(blocks))
        k, scales = min(blocks.part_depth(self.k), self.k), self._scale_bytes(blocks)
        rows = min(blocks.group, self._row_blocks(blocks), num_programs)
        columns = math.ceil(num_programs / rows) * self._weights(blocks, rows)
        full = min(blocks.m, self.m / self._row_blocks(blocks)) if self.experts else self.m
        row_bytes = rows * min(blocks.span_m, full) * (k * self.a_bytes + scales)
        column_bytes = columns * min(blocks.span_n, self.n) * (k * self.b_bytes + scales)
        return parts * row_bytes, parts * column_bytes

    def _scale_bytes(self, blocks: Blocks) -> float:
        """Return what the scales of one row of an operand cost: a granule at least each time."""
        if not self.scale_group:
            return 0.0
        run = max(blocks.k / self.scale_group, self.inside.tile.dma.gather_granule_bytes)
        return run * self._blocks_of_k(blocks)
