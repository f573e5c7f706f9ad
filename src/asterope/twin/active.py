"""The operations of experts' products that count: those of the rows that tokens have.

Each expert's rows fill blocks of their own, the last of them in part. What the tensor engines do
for rows that are not there takes their time and energy, but is no work of the model; and a roofline
is the least time of the work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from asterope.runtime import TimedLaunch
from asterope.sim import Result

__all__ = ["with_active_flop"]

_TENSOR = "tensor"


def with_active_flop(launches: Sequence[TimedLaunch], flop: int) -> list[TimedLaunch]:
    """Return launches, the last of which is a product, with its operations as they count."""
    *before, product = launches
    return [*before, dataclasses.replace(product, result=_counted(product.result, flop))]


def _counted(result: Result, flop: int) -> Result:
    [(rate, executed)] = result.flop.items()
    result = dataclasses.replace(result, flop={rate: flop})
    if result.fidelity != "roofline":
        return result
    limits = {name: busy * result.time_ps for name, busy in result.occupancy.items()}
    limits[_TENSOR] *= flop / executed
    bound, least = max(limits.items(), key=lambda limit: limit[1])
    time_ps = round(least)
    share = time_ps / result.time_ps
    return dataclasses.replace(
        result, time_ps=time_ps, roofline_ps=time_ps, bound_by=bound, breakdown_ps={bound: time_ps},
        occupancy={name: ps / time_ps for name, ps in limits.items()},
        energy_j=None if result.energy_j is None else result.energy_j * share,
        energy_parts_j={name: joules * share for name, joules in result.energy_parts_j.items()},
    )  # fmt: skip
