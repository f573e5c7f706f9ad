"""Choose block sizes of a matrix product: the least time by a closed form of the chip.

The chip is the one that is simulated, where one is, and Maia 200 otherwise. Block sizes change no
bit of a result. A split of K does, so that only products that are simulated have one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from asterope.chips import Chip, maia200
from asterope.kernels.choices import taken_instead
from asterope.kernels.product_cycles import Blocks, Choice, ProductCycles
from asterope.runtime import current_timeline

__all__ = ["Blocks", "Choice", "Considered", "choose_blocks", "considered"]

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_COLUMNS = (16, 32, 64, 128, 256, 512)
_DEPTHS_BYTES = (512, 256, 128)
# Scales of deeper blocks come in longer runs.
_SCALED_DEPTHS_BYTES = (1024, *_DEPTHS_BYTES)
_GROUP = 8
_STAGES = 3
# Larger blocks leave no room for the next program, whose loads would pass while one is stored.
_MAX_AREA = 1 << 16


@dataclass(frozen=True, slots=True)
class Considered:
    """Blocks that were considered, and the cycles that they are estimated to take."""

    blocks: Blocks
    cycles: int


def choose_blocks(
    m: int, n: int, k: int, a_bits: int, b_bits: int, k_step: int = 32, scale_group: int = 0,
    *, experts: int = 0, scale_step: int = 0,
) -> Blocks:  # fmt: skip
    """Return the blocks of the least estimated time for a product; see `Choice`."""
    choice = Choice(m, n, k, a_bits, b_bits, k_step, scale_group, experts, scale_step)
    instead = taken_instead(choice, Blocks)
    if instead is not None:
        return instead
    timeline = current_timeline()
    if timeline is None or timeline.chip.tile is None:
        return _chosen(choice)
    return _chosen_on(timeline.chip, choice)


@functools.lru_cache(maxsize=4096)
def _chosen(choice: Choice) -> Blocks:
    return considered(maia200(), choice, splits=False)[0].blocks


@functools.lru_cache(maxsize=4096)
def _chosen_on(chip: Chip, choice: Choice) -> Blocks:
    return considered(chip, choice)[0].blocks


def considered(chip: Chip, choice: Choice, *, splits: bool = True) -> list[Considered]:
    """Return all blocks for a product on a chip whose inside is described, the fastest first.

    Blocks along M and N, of the largest depth with which two programs fit into a tile's scratchpad,
    are costed as waves of programs over the tiles, as `ProductCycles` says. `splits` are considered
    where tiles would have no work otherwise, but not of the products of experts.

    Raises: ChipError if the chip's inside is not described.
    """
    product = ProductCycles.of(chip, choice)
    sizes = _sizes(product.rows_together, choice.n)
    depths = _depths(choice, product.full_run_of_scales)
    every = [[Blocks(bm, bn, bk, _GROUP, _STAGES) for bk in depths] for bm, bn in sizes]
    fitting = [[b for b in each if product.share_of_scratchpad(b) <= 1 / 2] for each in every]
    wholes = [each[0] for each in fitting if each]
    if not wholes:  # a chip of small scratchpads: the least that there is
        wholes = [min((b for each in every for b in each), key=product.share_of_scratchpad)]
    found = [
        (product.cycles(blocks), product.preference(blocks), blocks)
        for whole in wholes
        for blocks in (product.splits(whole) if splits and not choice.experts else (whole,))
    ]
    found.sort(key=lambda c: c[:2])
    return [Considered(blocks, cycles) for cycles, _, blocks in found]


def _sizes(m: int, n: int) -> list[tuple[int, int]]:
    return [
        (bm, bn)
        for bm in _ROWS
        for bn in _COLUMNS
        if bm < 2 * max(m, 1) and bn < 2 * max(n, 16) and bm * bn <= _MAX_AREA
    ]


def _depths(choice: Choice, full_run_of_scales: int) -> list[int]:
    """Return the depths to consider, the deepest first."""
    bits = max(choice.a_bits, choice.b_bits)
    sizes = _SCALED_DEPTHS_BYTES if choice.scale_group else _DEPTHS_BYTES
    wanted = (full_run_of_scales, *(size * 8 // bits for size in sizes))
    return sorted({_depth(choice.k, choice.k_step, each) for each in wanted if each}, reverse=True)


def _depth(k: int, k_step: int, depth: int) -> int:
    """Take so much of K, in whole scale groups, at most K."""
    depth = max(depth, k_step)
    while depth > k_step and depth >= 2 * k:
        depth //= 2
    return depth
