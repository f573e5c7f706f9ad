"""The mappings of a product that were considered: estimated in closed form, then played.

Beside the fastest by the estimate, the best of each placement is played: another operand that stays
in TSRAM, or one that is pinned in CSRAM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from asterope.api.operation import MappedTime
from asterope.chips import Chip
from asterope.kernels import (
    Choice,
    Considered,
    ProductCycles,
    considered,
    finalists,
    watched_choices,
)
from asterope.quant import QuantizedLinear, Scheme
from asterope.runtime import simulate

__all__ = ["MappingTime", "PlacedTime", "product_mappings"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MappingTime(MappedTime):
    """One way to cut a product into blocks, with the time of the whole layer that it gives."""

    block_m: int
    block_n: int
    block_k: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedTime(MappingTime):
    """A mapping that says what is in which memory.

    `stationary` (x, w, or y, the sums) stays in TSRAM while the rest passes, `pinned` in CSRAM;
    `kept` are the operands that CSRAM holds until they are read again, pinned or not. `limits_s`
    is what each part of the chip alone would take in closed form; `ends` comes before and after.
    """

    stationary: str
    pinned: str | None
    kept: tuple[str, ...]
    limits_s: Mapping[str, float]


def product_mappings(
    chip: Chip, m: int, n: int, k: int, scheme: Scheme, *, most: int = 4
) -> list[PlacedTime]:
    """Return the `most` mappings of the least estimated time, and the best of each placement.

    The fastest as simulated is first.

    Shapes: x [m, k], weight [n, k]. The list is empty for a chip whose inside is not described.

    Raises: ShapeError if the format's blocks do not divide k.
    """
    if chip.tile is None:
        return []
    layer = QuantizedLinear.empty(n, k, scheme)
    x = torch.empty((m, k), dtype=torch.bfloat16, device="meta")
    # What is chosen does not wait for a time: the cheaper fidelity will do.
    with watched_choices() as choices, simulate(chip, values=False, fidelity="roofline"):
        layer.apply(x)
    if not choices:
        return []
    product = choices[-1]  # before it, there may be that which rotates the inputs
    finals = finalists(chip, product)
    found = considered(chip, product)
    best = {(each.blocks.stationary, each.blocks.pinned): each for each in reversed(found)}
    played = dict.fromkeys([*finals, *found[:most], *best.values()])
    times = {each: _confirmed(chip, layer, x, product, each) for each in played}
    chosen = min(finals, key=lambda each: times[each].time_s)
    times[chosen] = replace(times[chosen], is_chosen=True)
    return sorted(times.values(), key=lambda time: (time.time_s, not time.is_chosen))


def _confirmed(
    chip: Chip, layer: QuantizedLinear, x: torch.Tensor, wanted: Choice, each: Considered
) -> PlacedTime:
    blocks = each.blocks
    with watched_choices(instead=blocks, of=wanted), simulate(chip, values=False) as timeline:
        layer.apply(x)
    launches = [launch.result for launch in timeline.launches]
    product = max(launches, key=lambda result: result.total_flop)
    clock_hz = chip.inside().clock_hz
    (m, k), n = x.shape, layer.out_features
    parts = blocks.parts(k)
    closed = ProductCycles.of(chip, wanted)
    return PlacedTime(
        block_m=blocks.m,
        block_n=blocks.n,
        block_k=blocks.k,
        stages=blocks.stages,
        split=parts,
        programs=-(-m // blocks.span_m) * -(-n // blocks.span_n) * parts,
        estimated_s=each.cycles / clock_hz,
        time_s=timeline.time_s,
        hbm_bytes=sum(result.hbm_bytes for result in launches[launches.index(product) :]),
        bound_by=product.bound_by,
        is_chosen=False,
        stationary=blocks.stationary,
        pinned=blocks.pinned,
        kept=tuple(o for o, stays in zip("xw", closed.stays(blocks), strict=True) if stays),
        limits_s={name: each / clock_hz for name, each in closed.limits(blocks).items()},
    )
