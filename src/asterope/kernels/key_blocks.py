"""Choose the blocks of attention: the least time by a closed form of the chip that is simulated.

Where none is, blocks are the same for all shapes: how many keys a step takes decides the order of
sums, and values without a chip depend on none. Rows do not: each row is computed by itself.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from asterope.chips import Chip
from asterope.kernels.attention_cycles import AttentionCycles, AttentionShape, KeyBlocks
from asterope.kernels.choices import taken_instead
from asterope.runtime import current_timeline

__all__ = ["ConsideredKeys", "choose_key_blocks", "considered_keys"]

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_KEYS = (64, 128, 256, 512, 1024)
_SPLITS = (1, 2, 4, 8, 16, 32)
_STAGES = 4
_USUAL_ROWS, _USUAL_KEYS = 128, 64


@dataclass(frozen=True, slots=True)
class ConsideredKeys:
    """Blocks of attention that were considered, and the cycles they are estimated to take."""

    blocks: KeyBlocks
    cycles: int


def choose_key_blocks(shape: AttentionShape) -> KeyBlocks:
    """Return the blocks of the least estimated time on the chip that is simulated."""
    instead = taken_instead(shape, KeyBlocks)
    if instead is not None:
        return instead
    timeline = current_timeline()
    if timeline is None or timeline.chip.tile is None:
        return _usual(shape)
    return _chosen_on(timeline.chip, shape)


def _usual(shape: AttentionShape) -> KeyBlocks:
    rows = shape.tokens * shape.share
    return KeyBlocks(min(_USUAL_ROWS, 1 << (rows - 1).bit_length()), _USUAL_KEYS, _STAGES)


@functools.lru_cache(maxsize=1024)
def _chosen_on(chip: Chip, shape: AttentionShape) -> KeyBlocks:
    return considered_keys(chip, shape)[0].blocks


def considered_keys(chip: Chip, shape: AttentionShape) -> list[ConsideredKeys]:
    """Return all blocks for attention on a chip whose inside is described, the fastest first.

    They are those with which two programs fit into a tile's scratchpad. Splits of the keys are
    considered where tiles would have no work otherwise.

    Raises: ChipError if the chip's inside is not described.
    """
    time = AttentionCycles.of(chip, shape)
    rows, keys = shape.tokens * shape.share, shape.keys
    wholes = [
        KeyBlocks(r, k, _STAGES)
        for r in _ROWS
        if r < 2 * rows and (r >= min(rows, 32))
        for k in _KEYS
        if k < 2 * max(keys, _KEYS[0])
    ]
    fitting = [each for each in wholes if time.share_of_scratchpad(each) <= 1 / 2]
    if not fitting:  # a chip of small scratchpads: the least that there is
        fitting = [min(wholes, key=time.share_of_scratchpad)]
    found = [
        ConsideredKeys(blocks, time.cycles(blocks))
        for whole in fitting
        for blocks in _splits(whole, time, chip.inside().num_tiles)
    ]
    return sorted(found, key=lambda each: each.cycles)


def _splits(whole: KeyBlocks, time: AttentionCycles, tiles: int) -> list[KeyBlocks]:
    programs = time.num_programs(whole)
    steps = -(-time.shape.keys // whole.keys)
    return [
        replace(whole, split=split)
        for split in _SPLITS
        if split == 1 or (split <= steps and programs * split < 2 * tiles)
    ]
