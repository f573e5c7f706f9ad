"""The power limit: the highest clock at which a launch draws no more than the chip's TDP.

A guess at the clock comes from what the time and the energy of a simulated launch were spent on;
the launch is then simulated again at that clock, so that what is returned adds up like any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from asterope.chips import Chip, VoltageScaling
from asterope.errors import ChipError
from asterope.sim.result import Result

__all__ = ["within_tdp"]

_TOLERANCE = 0.01
_TARGET = 1 - _TOLERANCE / 2
_MOST_GUESSES = 12
_LEAST_SHARE = 2.0**-20
# What a lower clock does not slow down: memory has its own, and so has the host.
_OWN_CLOCK = ("hbm", "launch")
_ON_DIE = ("tensor", "vector", "reshaper", "tsram", "csram", "noc")


def within_tdp(chip: Chip, as_set: Result, play: Callable[[float], Result]) -> Result:
    """Return a launch at the set clock if it keeps to the TDP, or at the highest at which it does.

    `play` simulates it at a share of the full clock. The power found is within a hundredth below
    the TDP, or so near that no clock between two tried ones is left.

    Raises: ChipError if no clock is low enough.
    """
    tdp_w = chip.power.tdp_w
    if tdp_w is None or not _exceeds(as_set, tdp_w):
        return as_set
    too_fast, fits, best, last = as_set.clock_share, 0.0, None, as_set
    for guess in range(_MOST_GUESSES):
        share = _guess(chip, last, tdp_w * _TARGET)
        if not fits < share < too_fast or guess > _MOST_GUESSES // 2:
            share = (fits + too_fast) / 2
        last = play(share)
        if _exceeds(last, tdp_w):
            too_fast = share
            continue
        fits, best = share, last
        if (last.power_w or 0.0) >= (1 - _TOLERANCE) * tdp_w:
            break
    while best is None:
        too_fast /= 2
        if too_fast < _LEAST_SHARE:
            raise ChipError(f"no clock is low enough for {tdp_w:g} W", where="power.tdp_w")
        last = play(too_fast)
        best = None if _exceeds(last, tdp_w) else last
    longer_ps = best.time_ps - as_set.time_ps
    return dataclasses.replace(best, is_throttled=True, throttled_ps=longer_ps)


def _exceeds(result: Result, tdp_w: float) -> bool:
    return result.power_w is not None and result.power_w > tdp_w


def _guess(chip: Chip, result: Result, target_w: float) -> float:
    """Return the share of the full clock at which a launch should draw a power, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _power_w(chip, result, middle) > target_w else (middle, high)
    return low


def _power_w(chip: Chip, result: Result, share: float) -> float:
    """Predict the mean power at another clock, from where time and energy went at this one."""
    scaling = chip.power.scaling or VoltageScaling(least_voltage=1.0, least_voltage_clock=1.0)
    slower = result.clock_share / share
    voltage = scaling.voltage(share) / scaling.voltage(result.clock_share)
    fixed_ps = sum(result.breakdown_ps.get(name, 0) for name in _OWN_CLOCK)
    longer = (fixed_ps + (result.time_ps - fixed_ps) * slower) / result.time_ps
    parts = result.energy_parts_j
    energy_j = (
        sum(parts[name] for name in _ON_DIE) * voltage**2
        + parts["clock"] * voltage**2 * longer / slower
        + parts["leakage"] * voltage * longer
        + parts["hbm"]
    )
    return energy_j / (result.time_s * longer)
