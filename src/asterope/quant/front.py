"""The Pareto front of choices that add up: of all sums of cost, the ones of least loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["FrontPoint", "pareto_front"]

MAX_POINTS = 4096
"""Points that are kept after each place; where there are more, the best of each step of cost is."""

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """One choice for each place, by number, with the sums of their costs and losses."""

    cost: float
    loss: float
    picks: tuple[int, ...]


def pareto_front(
    costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]]
) -> list[FrontPoint]:
    """Return the choices that no other beats in both sums, the cheapest first.

    `costs[i][j]` and `losses[i][j]` are those of choice j at place i. Exact while there are at most
    `MAX_POINTS` sums; beyond, sums of cost that differ by less than that share of their range count
    as equal.
    """
    cost, loss = np.zeros(1), np.zeros(1)
    steps: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
    for place_costs, place_losses in zip(costs, losses, strict=True):
        width = len(place_costs)
        cost = (cost[:, None] + np.asarray(place_costs, dtype=np.float64)).ravel()
        loss = (loss[:, None] + np.asarray(place_losses, dtype=np.float64)).ravel()
        kept = _thinned(cost, _undominated(cost, loss))
        cost, loss = cost[kept], loss[kept]
        steps.append((kept // width, kept % width))
    points = []
    for last in range(len(cost)):
        picks, at = [], last
        for parents, choices in reversed(steps):
            picks.append(int(choices[at]))
            at = int(parents[at])
        points.append(FrontPoint(float(cost[last]), float(loss[last]), tuple(reversed(picks))))
    return points


def _undominated(cost: _Numbers, loss: _Numbers) -> npt.NDArray[np.intp]:
    """Return the numbers of the points that none is as good as in both, the cheapest first."""
    order = np.lexsort((loss, cost))
    best = np.minimum.accumulate(loss[order])
    is_better = np.ones(len(order), dtype=bool)
    is_better[1:] = best[1:] < best[:-1]
    undominated: npt.NDArray[np.intp] = order[is_better]
    return undominated


def _thinned(cost: _Numbers, kept: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Keep the cheapest and, of each step of cost, the last, which loses least."""
    if len(kept) <= MAX_POINTS:
        return kept
    low, high = cost[kept[0]], cost[kept[-1]]
    step = ((cost[kept] - low) / (high - low) * (MAX_POINTS - 2)).astype(np.intp)
    is_last = np.ones(len(kept), dtype=bool)
    is_last[1:-1] = step[2:] != step[1:-1]
    thinned: npt.NDArray[np.intp] = kept[is_last]
    return thinned
