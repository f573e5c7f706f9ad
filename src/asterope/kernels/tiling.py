"""Choose block sizes of a matrix product: the least time by a closed form of the chip.

The chip is the one that is simulated, where one is, and Maia 200 otherwise. Block sizes change no
bit of a result. A split of K does, so that only products that are simulated have one. Only these
choose as well what stays in which memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from asterope.chips import Chip, maia200
from asterope.kernels.blocks import LARGE_GROUP, Blocks, Choice
from asterope.kernels.choices import taken_instead
from asterope.kernels.placements import narrower, pinnings, walks
from asterope.kernels.product_cycles import ProductCycles
from asterope.runtime import Timeline, current_timeline, time_aside

__all__ = ["Blocks", "Choice", "Considered", "choose_blocks", "considered", "finalists"]

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_COLUMNS = (16, 32, 64, 128, 256, 512)
_DEPTHS_BYTES = (512, 256, 128)
# Scales of deeper blocks come in longer runs.
_SCALED_DEPTHS_BYTES = (1024, *_DEPTHS_BYTES)
_STAGES = 3
# Larger blocks leave no room for the next program, whose loads would pass while one is stored.
_MAX_AREA = 1 << 16
# What the closed form must find a placement to save before it is played.
_PLACED_GAIN = 0.03


@dataclass(frozen=True, slots=True)
class Considered:
    """Blocks that were considered, and the cycles that they are estimated to take."""

    blocks: Blocks
    cycles: int


_confirmed: dict[tuple[Chip, Choice], Blocks] = {}


def choose_blocks(
    m: int, n: int, k: int, a_bits: int, b_bits: int, k_step: int = 32, scale_group: int = 0,
    *, experts: int = 0, scale_step: int = 0, play: Callable[[Blocks], None] | None = None,
) -> Blocks:  # fmt: skip
    """Return the blocks of the least estimated time for a product; see `Choice`.

    `play` launches the product with some blocks. Without it no operand is placed: the estimate of
    one that seems faster is confirmed by playing it beside the best that is not placed.
    """
    choice = Choice(m, n, k, a_bits, b_bits, k_step, scale_group, experts, scale_step)
    instead = taken_instead(choice, Blocks)
    if instead is not None:
        return instead
    timeline = current_timeline()
    if timeline is None or timeline.chip.tile is None:
        return _chosen(choice)
    finals = finalists(timeline.chip, choice)
    if play is None or len(finals) == 1:
        return finals[0].blocks
    key = timeline.chip, choice
    if key not in _confirmed:
        times = [_played_ps(timeline, each.blocks, play) for each in finals]
        _confirmed[key] = finals[times.index(min(times))].blocks
    return _confirmed[key]


def _played_ps(timeline: Timeline, blocks: Blocks, play: Callable[[Blocks], None]) -> int:
    with time_aside(timeline, "tile") as aside:
        play(blocks)
    return aside.time_ps


@functools.lru_cache(maxsize=4096)
def _chosen(choice: Choice) -> Blocks:
    return considered(maia200(), choice, simulated=False)[0].blocks


@functools.lru_cache(maxsize=4096)
def finalists(chip: Chip, choice: Choice) -> tuple[Considered, ...]:
    """Return the blocks to play: the usual ones, and a placement estimated clearly faster, if any.

    Raises: as `considered`.
    """
    found = considered(chip, choice)
    plain = next(each for each in found if not each.blocks.is_placed)
    is_clear = found[0].cycles * (1 + _PLACED_GAIN) < plain.cycles
    return (plain, found[0]) if is_clear else (plain,)


def considered(chip: Chip, choice: Choice, *, simulated: bool = True) -> list[Considered]:
    """Return all blocks for a product on a chip whose inside is described, the fastest first.

    Blocks along M and N, of the largest depth with which two programs fit into a tile's scratchpad,
    are costed as waves of programs over the tiles, as `ProductCycles` says. Where the product is
    `simulated`, splits are considered if tiles would have no work otherwise, and that an operand
    stays in TSRAM or is pinned in CSRAM; none of it of the products of experts.

    Raises: ChipError if the chip's inside is not described.
    """
    product = ProductCycles.of(chip, choice)
    sizes = _sizes(product.rows_together, choice.n)
    depths = _depths(choice, product.full_run_of_scales)
    every = [[Blocks(bm, bn, bk, LARGE_GROUP, _STAGES) for bk in depths] for bm, bn in sizes]
    fitting = [[b for b in each if product.share_of_scratchpad(b) <= 1 / 2] for each in every]
    wholes = [each[0] for each in fitting if each]
    if not wholes:  # a chip of small scratchpads: the least that there is
        wholes = [min((b for each in every for b in each), key=product.share_of_scratchpad)]
    every_blocks = list(wholes)
    if simulated and not choice.experts:
        every_blocks = [blocks for whole in wholes for blocks in product.splits(whole)]
        if not choice.scale_step:
            every_blocks += [b for blocks in every_blocks for b in narrower(product, blocks)]
            every_blocks += walks(product, choice, sizes, _STAGES)
            every_blocks += [p for blocks in every_blocks for p in pinnings(product, blocks)]
    found = [(product.cycles(b), product.preference(b), b) for b in every_blocks]
    found.sort(key=lambda each: (each[0], each[2].is_placed, each[1]))
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
