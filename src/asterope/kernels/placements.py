"""Where a product's operands may be: which stays in TSRAM over a walk, what is pinned in CSRAM."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from asterope.kernels.blocks import Blocks, Choice
from asterope.kernels.product_cycles import ProductCycles

__all__ = ["narrower", "pinnings", "walks"]

# Triton has no larger blocks.
_MAX_ELEMENTS = 1 << 20
_BESIDE = (1, 2)


def pinnings(product: ProductCycles, blocks: Blocks) -> Iterator[Blocks]:
    """Return the blocks with each operand pinned that does not stay in CSRAM by itself.

    Of x those rows are pinned that programs work on together, so many blocks as there is room for.
    """
    if blocks.parts(product.k) > 1 or product.num_programs(blocks) <= product.inside.num_tiles:
        return
    x_stays, w_stays = product.stays(blocks)
    if not x_stays:
        groups = [replace(blocks, pinned="x", group=blocks.group >> i) for i in range(4)]
        yield from [b for b in groups if b.group and product.stays(b)[0]][:1]
    if not w_stays and product.stays(pinned := replace(blocks, pinned="w"))[1]:
        yield pinned


def narrower(product: ProductCycles, blocks: Blocks) -> Iterator[Blocks]:
    """Return the blocks in groups of so few rows that these stay in CSRAM, if there are such."""
    if blocks.parts(product.k) == 1 and not product.stays(blocks)[0]:
        groups = [replace(blocks, group=blocks.group >> i) for i in range(1, 4)]
        yield from [b for b in groups if b.group and product.stays(b)[0]][:1]


def walks(
    product: ProductCycles, choice: Choice, sizes: Iterable[tuple[int, int]], stages: int
) -> Iterator[Blocks]:
    """Return blocks over all of K of which x or the weight stays in TSRAM, where they fit.

    Walks are as long as give each tile one program, or two beside each other.
    """
    depth = 1 << max(choice.k_step.bit_length() - 1, (choice.k - 1).bit_length())
    for m, n in sizes:
        if max(m, n) * depth > _MAX_ELEMENTS:
            continue
        rows, columns = math.ceil(choice.m / m), math.ceil(choice.n / n)
        found = set()
        for tiles in (beside * product.inside.num_tiles for beside in _BESIDE):
            along_n = math.ceil(columns / max(1, tiles // rows))
            along_m = math.ceil(rows / max(1, tiles // columns))
            found.add(Blocks(m, n, depth, rows, stages, stationary="x", walk=along_n))
            together = math.ceil(product.inside.num_tiles / columns)
            found.add(Blocks(m, n, depth, together, stages, stationary="w", walk=along_m))
        for blocks in sorted(found, key=lambda b: (b.stationary, b.walk)):
            if blocks.walk > 1 and product.share_of_scratchpad(blocks) <= 1:
                yield blocks
