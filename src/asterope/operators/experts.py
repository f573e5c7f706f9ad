"""The experts of a mixture-of-experts layer on one chip: two grouped products between copies."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from asterope.chips import Chip
from asterope.errors import ConfigError
from asterope.operators.products import Floats, best_plan
from asterope.operators.timing import OperatorTime, achieved, check_sizes, overlapped, timed

__all__ = ["KERNELS", "copied_bytes", "expert_loads", "expert_product", "experts"]

KERNELS = 6
"""Sort, gather, two products, activation, weighted sum."""
_UNROUNDED_BITS = 16
_FEW_TOKENS_RANGE = 200.0
"""Largest over smallest share of a power law where tokens do not go round all experts."""
_PLACEMENTS = 64
"""Placements of experts on chips whose busiest chips are averaged."""
_LARGE_MEAN = 200
"""Tokens of an expert from which a random spread is taken for normal."""


def expert_loads(
    num_experts: int, top_k: int, tokens: int, *, ranks: int = 1, skew: float = 0.0,
    random: bool = False,
) -> Floats:  # fmt: skip
    """Return the tokens of each expert that the busiest of `ranks` chips holds.

    Shapes: result [num_experts / ranks]; experts without a token have 0.
    `skew` is the exponent of a power law over experts, 0 for equal shares; experts are placed on
    chips without regard for their loads. With `random` each token picks its experts
    at random instead: some have none while others have several, and one chip has more than its
    share.

    Raises: ConfigError for sizes below one, or experts that the chips cannot share.
    """
    check_sizes(num_experts=num_experts, top_k=top_k, tokens=tokens, ranks=ranks)
    if num_experts % ranks or top_k > num_experts:
        raise ConfigError(
            f"{num_experts} experts are not {top_k} or more, or {ranks} chips cannot share them",
            where="num_experts",
        )
    local, total = num_experts // ranks, tokens * top_k
    if random:
        return _at_random(num_experts, top_k, tokens, ranks)
    if skew == 0:
        if total >= num_experts:
            return np.full(local, total / num_experts)
        used = min(local, math.ceil(total / ranks))
        return np.concatenate([np.ones(used), np.zeros(local - used)])
    loads = _power_law(num_experts, total, tokens, skew)
    return loads if ranks == 1 else _on_busiest(loads, ranks)


def _on_busiest(loads: Floats, ranks: int) -> Floats:
    """Return what the busiest chip holds where experts are placed without regard for their loads.

    Shapes: loads [E]; result [E / ranks], largest first, the mean of some fixed placements.
    """
    local = len(loads) // ranks
    if local == 1:
        return loads[:1]
    generator = np.random.default_rng(0)
    placed = np.stack([generator.permutation(loads) for _ in range(_PLACEMENTS)])
    chips = placed.reshape(_PLACEMENTS, ranks, local)
    busiest = chips[np.arange(_PLACEMENTS), chips.sum(axis=2).argmax(axis=1)]
    return np.asarray(-np.sort(-busiest, axis=1).mean(axis=0).round(), dtype=np.float64)


def _at_random(num_experts: int, top_k: int, tokens: int, ranks: int) -> Floats:
    """Return the quantiles of a random spread on the chip that has most, largest first."""
    local, picked = num_experts // ranks, top_k / num_experts
    on_chip = tokens * top_k / ranks
    # Blom's estimate of the largest of so many draws, from the spread of one chip's total.
    most = NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25))
    spread = math.sqrt(on_chip * (1 - 1 / ranks)) * most
    mean = min(float(tokens), (on_chip + spread) / local)
    places = (np.arange(local) + 0.5) / local
    if mean > _LARGE_MEAN:
        deviation = math.sqrt(mean * (1 - picked))
        loads = mean + deviation * np.array([NormalDist().inv_cdf(p) for p in places])
    else:
        counts = np.arange(1, math.ceil(mean + 12 * math.sqrt(mean) + 12))
        logs = np.concatenate([[0.0], np.cumsum(np.log(mean) - np.log(counts))]) - mean
        loads = np.searchsorted(np.cumsum(np.exp(logs)), places).astype(np.float64)
    loads = np.floor(np.clip(loads, 0, tokens))[::-1].copy()
    if ranks == 1:
        _make_whole(loads, tokens * top_k, tokens)
    return loads


def _power_law(num_experts: int, total: int, tokens: int, skew: float) -> Floats:
    """Share `total` assignments by the quantiles of a power law, whole tokens, largest first."""
    widest = 0.8 * tokens if total > num_experts else _FEW_TOKENS_RANGE
    widest = max(1.0001, widest)
    places = (np.arange(num_experts) + 0.5) / num_experts
    if abs(skew - 1) < 1e-6:
        weights = widest**places
    else:
        weights = ((widest ** (1 - skew) - 1) * places + 1) ** (1 / (1 - skew))
    weights = np.sort(weights)[::-1]
    loads = np.minimum(np.rint(weights * total / weights.sum()), tokens)
    _make_whole(loads, total, tokens)
    return np.sort(loads)[::-1]


def _make_whole(loads: Floats, total: int, most: int) -> None:
    """Make loads add up to `total`: what is missing to those with least, the rest from the most.

    Shapes: loads [E], largest first, changed in place.
    """
    while left := int(total - loads.sum()):
        if left > 0:
            least = np.flatnonzero(loads < most)[::-1][:left]
            loads[least] += 1
        else:
            largest = np.argsort(-loads, kind="stable")
            loads[largest[loads[largest] > 0][:-left]] -= 1


def expert_product(
    chip: Chip, loads: Floats, n: int, k: int, *, rate: str, bits: tuple[float, float],
    block_scaled: bool = False,
) -> OperatorTime:  # fmt: skip
    """Time one projection of the experts a chip holds: a product of each that has tokens.

    Shapes: loads [E], the tokens of each expert; their weights [n, k].

    Raises: ConfigError for sizes below one; ChipError if the chip has no calibrated operators.
    """
    check_sizes(n=n, k=k, tokens=math.ceil(loads.sum()))
    rows = loads[loads > 0]
    plan = best_plan(
        chip, rows, n, k, rate=rate, bits=bits, grouped=True, block_scaled=block_scaled
    )
    return timed(
        {"launch": achieved(chip).kernel_s, **overlapped(plan.tensor_s, plan.hbm_s)},
        flop=2.0 * float(rows.sum()) * n * k,
        hbm_bytes=plan.hbm_bytes,
        mapping=f"{len(rows)} experts, blocks of {plan.block_m} x {plan.block_n}",
    )


def experts(
    chip: Chip, loads: Floats, hidden: int, intermediate: int, *, rate: str,
    bits: tuple[float, float], block_scaled: bool = False, tokens: int | None = None,
) -> OperatorTime:  # fmt: skip
    """Time gate, up and down projections of the experts a chip holds, and the copies around.

    Shapes: loads [E], the tokens of each expert; activations [tokens, hidden]. `block_scaled` is
    that of `gemm`. The chip has `tokens` before and after, whichever of their experts it holds; by
    default those of its experts.

    Raises: ConfigError for sizes below one; ChipError if the chip has no calibrated operators.
    """
    assigned = math.ceil(loads.sum())
    tokens = assigned if tokens is None else tokens
    check_sizes(hidden=hidden, intermediate=intermediate, tokens=min(assigned, tokens))
    reach = achieved(chip)
    rows = loads[loads > 0]
    products = [
        best_plan(chip, rows, n, k, rate=rate, bits=bits, grouped=True, block_scaled=block_scaled)
        for n, k in ((2 * intermediate, hidden), (hidden, intermediate))
    ]
    rounds = bits[0] < _UNROUNDED_BITS
    moved_bits = _UNROUNDED_BITS if block_scaled else bits[0]
    copied = copied_bytes(float(rows.sum()), tokens, hidden, intermediate, moved_bits)
    copies_s = copied / (chip.hbm.bandwidth_bytes_per_s * reach.gather_fraction)
    kernels = KERNELS + (rounds and not block_scaled)
    parts = {"launch": kernels * reach.kernel_s, "copies": copies_s}
    if rounds and block_scaled:
        rounded = float(rows.sum()) * (hidden + intermediate) * (_UNROUNDED_BITS + bits[0]) / 8
        rounding_s = rounded / (chip.hbm.bandwidth_bytes_per_s * reach.rounding_fraction)
        parts["quantize"] = rounding_s + len(loads) * reach.visit_s
        copied += rounded
    for plan in products:
        for name, seconds in overlapped(plan.tensor_s, plan.hbm_s).items():
            parts[name] = parts.get(name, 0.0) + seconds
    first = products[0]
    return timed(
        parts,
        flop=2.0 * float(rows.sum()) * 3 * hidden * intermediate,
        hbm_bytes=copied + sum(plan.hbm_bytes for plan in products),
        mapping=f"{len(rows)} experts, blocks of {first.block_m} x {first.block_n}",
    )


def copied_bytes(
    rows: float, tokens: int, hidden: int, intermediate: int, moved_bits: float
) -> float:
    """Count what kernels around the products read and write, of rows of experts and of tokens.

    A row is gathered, activated, and read into its token's sum; a token's sum is written, and where
    products read rounded rows the token is rounded first.
    """
    gathered = 2 * hidden * moved_bits
    activated = intermediate * (2 * _UNROUNDED_BITS + moved_bits)
    summed = hidden * _UNROUNDED_BITS
    rounded = (_UNROUNDED_BITS + moved_bits) * (moved_bits < _UNROUNDED_BITS)
    return (rows * (gathered + activated + summed) + tokens * (summed + hidden * rounded)) / 8
