"""One matrix product on a chip: simulated, or timed as an operator where only that is possible."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asterope.api.launched import grids_in_words, lowest_clock_hz, parts_s
from asterope.api.operation import OperationTime
from asterope.chips import Chip
from asterope.errors import ConfigError
from asterope.operators import check_sizes
from asterope.quant import QuantizedLinear, Scheme
from asterope.runtime import Timeline, simulate
from asterope.sim import Fidelity
from asterope.twin import product_time
from asterope.units import PS_PER_S

__all__ = ["ProductTime", "product_launches", "time_product"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductTime(OperationTime):
    """The time and energy of C = A B on one chip."""


def time_product(chip: Chip, m: int, n: int, k: int, scheme: Scheme) -> ProductTime:
    """Time x W^T for x [m, k] in the scheme's activations and W [n, k] in its weights.

    A chip whose inside is described runs the library's own kernels; a calibrated one is timed by
    operators; others have the roofline.

    Raises: ConfigError for sizes below one and for a low-rank branch; ShapeError if the format's
    blocks do not divide k.
    """
    timeline = product_launches(chip, m, n, k, scheme)
    layer = QuantizedLinear.empty(n, k, scheme)
    launches = [launch.result for launch in timeline.launches]
    product = max(launches, key=lambda result: result.total_flop)
    rate = max(product.flop, key=lambda name: product.flop[name])
    time_s, parts = timeline.time_s, parts_s(timeline)
    hbm_bytes: float = sum(result.hbm_bytes for result in launches)
    mapping = grids_in_words(timeline)
    energy_j, energy_parts_j = timeline.energy_j, timeline.energy_parts_j()
    fidelity = chip.fidelities[-1]
    if fidelity == "operator":
        quantizes = scheme.activation_format is not None
        found = product_time(layer, chip, rows=m, rate=rate, quantizes=quantizes)
        time_s, parts, hbm_bytes = found.time_s, dict(found.parts), found.hbm_bytes
        mapping = found.mapping
        energy_j = None if chip.power.tdp_w is None else chip.power.tdp_w * time_s
        energy_parts_j = {} if energy_j is None else {"tdp": energy_j}
    return ProductTime(
        chip=f"{chip.name}:{chip.profile}",
        timed_by=fidelity,
        time_s=time_s,
        flop=2 * m * n * k,
        hbm_bytes=hbm_bytes,
        rate=rate,
        peak_share=2 * m * n * k / time_s / chip.peak_flop_per_s[rate],
        bound_by=max(parts, key=lambda name: parts[name]),
        parts=parts,
        mapping=mapping,
        energy_j=energy_j,
        energy_parts_j=energy_parts_j,
        clock_hz=lowest_clock_hz(timeline),
        throttled_s=timeline.throttled_ps / PS_PER_S,
    )


def product_launches(
    chip: Chip, m: int, n: int, k: int, scheme: Scheme, *, max_events: int = 0
) -> Timeline:
    """Return the launches of a product, by tile or roofline, as a timeline.

    `max_events` keeps that many macro-instructions of each.

    Raises: as `time_product`.
    """
    check_sizes(M=m, N=n, K=k)
    if scheme.rank is not None:
        raise ConfigError(
            "a branch is two more products", where=f"format {scheme.name}",
            hint=f"time them apart, or simulate a model: N = {scheme.rank}, then K = {scheme.rank}",
        )  # fmt: skip
    layer = QuantizedLinear.empty(n, k, scheme)
    fidelity: Fidelity = "tile" if chip.tile else "roofline"
    with simulate(chip, values=False, fidelity=fidelity, max_events=max_events) as timeline:
        layer.apply(torch.empty((m, k), dtype=torch.bfloat16, device="meta"))
    return timeline
