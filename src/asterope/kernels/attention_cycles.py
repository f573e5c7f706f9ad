"""What attention costs on a chip, by the blocks it is cut into: cycles in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asterope.chips import Chip, Inside
from asterope.sim import num_joins

__all__ = ["AttentionCycles", "AttentionShape", "KeyBlocks"]

# What the softmax of a block does to each score, in fp32: scaling, masking, maximum, difference,
# sum, rounding; a window is two more.
_OPS_OF_SCORE = 7
_OPS_OF_WINDOW = 2
# What widens a value in a block: taking its half of a byte, to its type, times its scale.
_OPS_OF_CODE = 4.5


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionShape:
    """Attention that blocks are chosen for: `tokens` new ones of each sequence, after `past`.

    `share` query heads read one key head; queries have so many `bits`, what is cached may have
    fewer, its scales counted, of which `group` elements share one. With `page`, the cache lies in
    pages of so many tokens. Queries may have `rope` more elements than `dim`, which meet keys that
    all heads share, and values another size; latent keys are the values as well.
    """

    batch: int
    kv_heads: int
    share: int
    dim: int
    tokens: int
    past: int
    window: int | None = None
    bits: int = 16
    cache_bits: float = 16
    group: int = 0
    page: int = 0
    rope: int = 0
    value: int = 0
    is_latent: bool = False

    @property
    def value_dim(self) -> int:
        """The size of a head's values."""
        return self.value or self.dim

    @property
    def elements_of_key(self) -> int:
        """Elements that are read of a key and its value."""
        return self.dim + self.rope + (0 if self.is_latent else self.value_dim)

    @property
    def keys(self) -> int:
        """Cached tokens and new ones."""
        return self.past + self.tokens


@dataclass(frozen=True, slots=True)
class KeyBlocks:
    """Rows (tokens and heads that share keys) of a program, keys of a step, and buffers.

    With a split, the keys are cut into so many parts, whose sums are then put together in order.
    """

    rows: int
    keys: int
    stages: int
    split: int = 1

    def part_keys(self, shape: AttentionShape) -> int:
        """Return how many keys one part has: whole blocks."""
        return math.ceil(math.ceil(self._span(shape) / self.keys) / self.split) * self.keys

    def parts(self, shape: AttentionShape) -> int:
        """Return how many parts there are."""
        return math.ceil(self._span(shape) / self.part_keys(shape))

    def _span(self, shape: AttentionShape) -> int:
        """Return the most keys that one program sees."""
        if shape.window is None:
            return shape.keys
        tokens = math.ceil(self.rows / shape.share) + 1
        return min(shape.keys, shape.window + tokens + self.keys)


@dataclass(frozen=True, slots=True)
class AttentionCycles:
    """Attention on the chip: what a choice of blocks costs."""

    shape: AttentionShape
    inside: Inside
    hbm_bytes_per_cycle: float
    launch_cycles: float

    @classmethod
    def of(cls, chip: Chip, shape: AttentionShape) -> AttentionCycles:
        """Return attention on a chip whose inside is described.

        Raises: ChipError if it is not.
        """
        inside = chip.inside()
        return cls(
            shape, inside, chip.hbm_effective_bytes_per_s / inside.clock_hz,
            chip.launch_overhead_s * inside.clock_hz + inside.tile.control.kernel_cycles,
        )  # fmt: skip

    def cycles(self, blocks: KeyBlocks) -> int:
        """Estimate the cycles of all of it.

        Tiles take programs in turn; the busiest, or HBM, is what the rest waits for. Before it come
        the first operands, after it the last step and its store.
        """
        steps = self._steps(blocks)
        step, load = self._step_cycles(blocks), self._load_cycles
        computing = steps * step + self._end_cycles(blocks)
        programs = np.maximum(computing, (1 + self._loads * steps) * load)
        tiles = self.inside.num_tiles
        padded = np.zeros(math.ceil(len(programs) / tiles) * tiles)
        padded[: len(programs)] = programs
        busiest = float(padded.reshape(-1, tiles).sum(0).max())
        ahead = 3 if self.shape.page else 2  # a table's entry, keys, and the first step's values
        first = ahead * self.inside.hbm_latency_cycles + self._block_bytes(blocks) / self._ingest
        rows_bytes = blocks.rows * self.shape.value_dim * self.shape.bits / 8
        last = step + rows_bytes / self.inside.tile.dma.egress_bytes_per_cycle
        time = max(busiest, self._hbm_bytes(blocks) / self.hbm_bytes_per_cycle)
        time += first + rows_bytes / self._ingest + last
        return round(time + self._merging_cycles(blocks))

    def num_programs(self, blocks: KeyBlocks) -> int:
        """Return how many programs there are."""
        heads = self.shape.batch * self.shape.kv_heads
        return self._row_blocks(blocks) * heads * blocks.parts(self.shape)

    def share_of_scratchpad(self, blocks: KeyBlocks) -> float:
        """Return what a program takes of TSRAM: queries, sums, scores, and keys and values."""
        shape = self.shape
        query = (shape.dim + shape.rope) * shape.bits / 8
        per_row = query + 4 * shape.value_dim + blocks.keys * (4 + 2)
        buffers = blocks.stages * self._block_bytes(blocks)
        if shape.group:
            buffers += blocks.keys * shape.value_dim * shape.bits / 8
        return (blocks.rows * per_row + buffers) / self.inside.tile.tsram.capacity_bytes

    @property
    def _ingest(self) -> float:
        return self.inside.tile.dma.ingest_bytes_per_cycle

    def _row_blocks(self, blocks: KeyBlocks) -> int:
        return math.ceil(self.shape.tokens * self.shape.share / blocks.rows)

    def _block_bytes(self, blocks: KeyBlocks) -> float:
        return blocks.keys * self.shape.elements_of_key * self.shape.cache_bits / 8

    def _seen(self, blocks: KeyBlocks) -> npt.NDArray[np.int64]:
        """Return how many keys each block of rows sees, from the first block of keys it needs."""
        shape = self.shape
        row = np.arange(self._row_blocks(blocks)) * blocks.rows
        newest = np.minimum((row + blocks.rows - 1) // shape.share, shape.tokens - 1)
        seen: npt.NDArray[np.int64] = shape.past + newest + 1
        if shape.window is not None:
            oldest = shape.past + row // shape.share - shape.window + 1
            seen = seen - np.maximum(oldest, 0) // blocks.keys * blocks.keys
        return seen

    def _steps(self, blocks: KeyBlocks) -> npt.NDArray[np.float64]:
        """Return how many blocks of keys each program goes through, in their order."""
        part = blocks.part_keys(self.shape)
        starts = part * np.arange(blocks.parts(self.shape))[:, None, None]
        seen = np.clip(self._seen(blocks)[None, None, :] - starts, 0, part)
        heads = np.ones((1, self.shape.batch * self.shape.kv_heads, 1))
        steps: npt.NDArray[np.float64] = np.ceil(seen / blocks.keys) * heads
        return steps.reshape(-1)

    def _step_cycles(self, blocks: KeyBlocks) -> float:
        """Return the longest of computing a step, taking it in, and waiting for a buffer."""
        serial = self._serial_cycles(blocks)
        loaded = self._load_cycles * self.inside.tile.dma.channels
        control = self.inside.tile.control  # 2 products and a softmax that wait for 3
        issue = (3 + self._loads + 3 * num_joins(3, control)) * control.issue_cycles
        buffer = (loaded + serial) / blocks.stages
        return max(serial, self._block_bytes(blocks) / self._ingest, buffer, issue)

    @property
    def _loads(self) -> int:
        """How many loads a step has: keys, values, scales, turned keys, entries of a table."""
        shape = self.shape
        parts = 1 + (not shape.is_latent)
        return parts * (1 + bool(shape.group)) + bool(shape.rope) + bool(shape.page)

    @property
    def _load_cycles(self) -> float:
        """How far apart loads come, on as many channels as there are."""
        dma = self.inside.tile.dma
        return (self.inside.hbm_latency_cycles + dma.latency_cycles) / dma.channels

    def _serial_cycles(self, blocks: KeyBlocks) -> float:
        """Return what one step computes: scores, their softmax, sums; each waits for the last."""
        tensor, vector = self.inside.tile.tensor, self.inside.tile.vector
        depths = tensor.depth_per_cycle
        depth = depths.get({8: "fp8"}.get(self.shape.bits, "bf16")) or min(depths.values())
        rows = math.ceil(blocks.rows / tensor.rows)
        deep = math.ceil(self.shape.dim / depth) + math.ceil(self.shape.rope / depth)
        scores = rows * math.ceil(blocks.keys / tensor.cols) * deep
        sums = rows * math.ceil(self.shape.value_dim / tensor.cols) * math.ceil(blocks.keys / depth)
        ops = _OPS_OF_SCORE + (_OPS_OF_WINDOW if self.shape.window is not None else 0)
        rate = vector.lanes_32bit * vector.ops_per_lane_cycle
        exponentials = vector.lanes_32bit * vector.transcendental_ops_per_lane_cycle
        softmax = blocks.rows * (
            blocks.keys * (ops / rate + 1 / exponentials) + self.shape.value_dim / rate
        )
        if self.shape.is_latent:  # scores are transposed
            softmax += blocks.rows * blocks.keys / self.inside.tile.reshaper.lanes_fp32
        if self.shape.group:
            lanes = vector.lanes_16bit if self.shape.bits <= 16 else vector.lanes_32bit
            widened = blocks.keys * self.shape.value_dim
            softmax += widened * _OPS_OF_CODE / (lanes * vector.ops_per_lane_cycle)
        return scores + sums + softmax + 2 * tensor.startup_cycles + vector.startup_cycles

    def _end_cycles(self, blocks: KeyBlocks) -> float:
        """Return what a program does once: dividing its sums, and storing them."""
        vector = self.inside.tile.vector
        elements = blocks.rows * self.shape.value_dim
        return elements / (vector.lanes_32bit * vector.ops_per_lane_cycle) + vector.startup_cycles

    def _hbm_bytes(self, blocks: KeyBlocks) -> float:
        """Return what is read and written: keys and values, queries, results or parts.

        Programs share whole blocks of keys, but not the last ones, each up to its own row. What is
        gathered from several pages is shared by none.
        """
        shape, parts = self.shape, blocks.parts(self.shape)
        seen = shape.keys
        if shape.window is not None:
            seen = min(shape.keys, shape.window + shape.tokens - 1)
        rows = shape.tokens * shape.share
        value, asked = shape.value_dim, (shape.dim + shape.rope) * shape.bits / 8
        stored = 4 * parts * (value + 2) if parts > 1 else value * shape.bits / 8
        heads = shape.batch * shape.kv_heads
        if 0 < shape.page < blocks.keys:
            seen = int(self._seen(blocks).sum())
        elif self._row_blocks(blocks) > 1:
            seen += int((self._seen(blocks) % blocks.keys).sum())
        cached = seen * shape.elements_of_key * shape.cache_bits / 8
        return heads * (cached + rows * (asked + stored))

    def _merging_cycles(self, blocks: KeyBlocks) -> float:
        """Return what a split costs: parts are read again by a kernel of its own."""
        shape, parts = self.shape, blocks.parts(self.shape)
        if parts == 1:
            return 0.0
        rows = shape.batch * shape.kv_heads * shape.share * shape.tokens
        moved = rows * (4 * parts * (shape.value_dim + 2) + shape.value_dim * shape.bits / 8)
        turns = math.ceil(4 * parts / self.inside.tile.dma.channels)
        waits = turns * (self.inside.hbm_latency_cycles + self.inside.tile.dma.latency_cycles)
        return self.launch_cycles + waits + moved / self.hbm_bytes_per_cycle
