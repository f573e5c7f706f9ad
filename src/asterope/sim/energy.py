"""The energy of a launch: what each operation and byte costs, and what the chip draws meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asterope.chips import Chip
from asterope.sim.costs import Cost
from asterope.sim.totals import Totals

__all__ = ["energy_parts_j"]

_PJ = 1e-12
_ON_DIE = ("tsram", "csram", "noc")


def energy_parts_j(
    chip: Chip, totals: Totals, costs: Sequence[Cost], moved: Mapping[str, int], *,
    time_ps: int, clock_share: float = 1.0,
) -> dict[str, float]:  # fmt: skip
    """Add up energy by what it is spent on, in joules.

    The coefficients of `chip` hold at its full clock. At a lower one, of which `time_ps` is the
    time, what happens on the die costs the square of the voltage; HBM has a supply of its own.
    """
    inside, power = chip.inside(), chip.power
    pj, voltage = inside.energy_pj, power.voltage(clock_share)
    cycles = inside.clock_hz * clock_share * time_ps * _PJ
    parts = {
        "tensor": sum(
            n * c.macs * pj.mac[c.mac_format]
            for n, c in zip(totals.executions, costs, strict=True)
            if c.mac_format
        ),
        "vector": sum(
            n * (c.vector_ops_16bit * pj.vector_op_16bit + c.vector_ops_32bit * pj.vector_op_32bit
                 + c.transcendental_ops * pj.transcendental_op)
            for n, c in zip(totals.executions, costs, strict=True)
        ),
        "reshaper": sum(
            n * (c.moves_16bit * pj.move_16bit + c.moves_32bit * pj.move_32bit)
            for n, c in zip(totals.executions, costs, strict=True)
        ),
        **{memory: moved[memory] * getattr(pj, f"{memory}_byte") for memory in _ON_DIE},
        "clock": cycles * pj.clock_cycle,
    }  # fmt: skip
    joules = {name: amount * voltage**2 * _PJ for name, amount in parts.items()}
    joules["hbm"] = moved["hbm"] * pj.hbm_byte * _PJ
    joules["leakage"] = (power.leakage_w or 0.0) * voltage * time_ps * _PJ
    return joules
