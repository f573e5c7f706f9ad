"""The mappings of a product that were considered: estimated in closed form, then played."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asterope.api.operation import MappedTime
from asterope.chips import Chip
from asterope.kernels import Choice, Considered, considered, watched_choices
from asterope.quant import QuantizedLinear, Scheme
from asterope.runtime import simulate

__all__ = ["MappingTime", "product_mappings"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MappingTime(MappedTime):
    """One way to cut a product into blocks, with the time of the whole layer that it gives."""

    block_m: int
    block_n: int
    block_k: int


def product_mappings(
    chip: Chip, m: int, n: int, k: int, scheme: Scheme, *, most: int = 4
) -> list[MappingTime]:
    """Return the mappings of the least estimated time, the fastest as simulated first.

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
    found = considered(chip, product)[:most]
    times = [
        _confirmed(chip, layer, x, product, each, is_chosen=not i) for i, each in enumerate(found)
    ]
    return sorted(times, key=lambda time: time.time_s)


def _confirmed(
    chip: Chip, layer: QuantizedLinear, x: torch.Tensor, wanted: Choice, each: Considered, *,
    is_chosen: bool,
) -> MappingTime:  # fmt: skip
    blocks = each.blocks
    with watched_choices(instead=blocks, of=wanted), simulate(chip, values=False) as timeline:
        layer.apply(x)
    launches = [launch.result for launch in timeline.launches]
    product = max(launches, key=lambda result: result.total_flop)
    clock_hz = chip.inside().clock_hz
    (m, k), n = x.shape, layer.out_features
    parts = blocks.parts(k)
    return MappingTime(
        block_m=blocks.m,
        block_n=blocks.n,
        block_k=blocks.k,
        stages=blocks.stages,
        split=parts,
        programs=-(-m // blocks.m) * -(-n // blocks.n) * parts,
        estimated_s=each.cycles / clock_hz,
        time_s=timeline.time_s,
        hbm_bytes=sum(result.hbm_bytes for result in launches[launches.index(product) :]),
        bound_by=product.bound_by,
        is_chosen=is_chosen,
    )
