"""How many tokens each expert saw where a collector drew loads and placed them its own way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["drawn_loads"]

Floats = npt.NDArray[np.float64]

_DRAWS = 64
_FEW_TOKENS = (0.01, 2.0)
"""Least and largest share of a power law where tokens do not go round all experts."""


def drawn_loads(num_experts: int, top_k: int, tokens: int, *, ranks: int, skew: float) -> Floats:
    """Return the loads of the busiest of `ranks` chips, as A100 rows were measured.

    Shapes: result [num_experts / ranks], largest first, the mean of some fixed draws. What rounding
    shares to whole tokens leaves goes to the largest shares first and, where all are 0, to the
    first experts in order: one token has all its experts on one chip.

    Source: power_law_logits_v2 in collector/trtllm/collect_moe.py of NVIDIA aiconfigurator at
    efcae124, with which the rows of TensorRT-LLM 1.0.0 were collected.
    """
    generator = np.random.default_rng(0)
    drawn = [_draw(generator, num_experts, top_k, tokens, skew) for _ in range(_DRAWS)]
    chips = np.stack(drawn).reshape(_DRAWS, ranks, -1)
    busiest = chips[np.arange(_DRAWS), chips.sum(axis=2).argmax(axis=1)]
    return np.asarray(-np.sort(-busiest, axis=1).mean(axis=0).round())


def _draw(
    generator: np.random.Generator, num_experts: int, top_k: int, tokens: int, skew: float
) -> Floats:
    total = tokens * top_k
    least, most = (1.0, 0.8 * tokens) if total > num_experts else _FEW_TOKENS
    places, power = generator.random(num_experts), 1 - skew
    weights = ((most**power - least**power) * places + least**power) ** (1 / power)
    loads = np.rint(weights * total / weights.sum())
    left, order = int(total - loads.sum()), np.argsort(-loads, kind="stable")
    if left > 0:
        loads[order[:left]] += 1
    for expert in order[::-1][: max(0, -left)]:
        loads[expert if loads[expert] > 0 else loads.argmax()] -= 1
    return loads
