"""What a chip draws at the peak of each format, by component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asterope.chips.chip import Chip

__all__ = ["PeakPower", "peak_power"]

_PJ = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class PeakPower:
    """Power at the peak of one format; the parts, in watts, add up to it.

    Where the energy of events is not described there is one part, the TDP.
    """

    format: str
    peak_flop_per_s: float
    parts_w: Mapping[str, float]
    claimed_flop_per_j: float | None

    @property
    def power_w(self) -> float:
        """The power of the whole chip."""
        return sum(self.parts_w.values())

    @property
    def flop_per_j(self) -> float:
        """The peak over the power: flop a second for each watt."""
        return self.peak_flop_per_s / self.power_w


def peak_power(chip: Chip) -> tuple[PeakPower, ...]:
    """Return the power at each format's peak, the narrowest first; none without a TDP.

    At the peak every tensor unit is busy, both of its operands come from TSRAM at the full rate,
    and HBM streams over the NoC into TSRAM at the bandwidth that kernels reach.
    """
    found = []
    for name, flop_per_s in chip.peak_flop_per_s.items():
        parts = _parts_w(chip, name)
        if parts:
            claimed = chip.power.claimed_flop_per_j.get(name)
            found.append(
                PeakPower(
                    format=name, peak_flop_per_s=flop_per_s, parts_w=parts,
                    claimed_flop_per_j=claimed,
                )
            )  # fmt: skip
    return tuple(found)


def _parts_w(chip: Chip, element: str) -> dict[str, float]:
    power = chip.power
    if chip.tile is None or power.energy_pj is None:
        return {} if power.tdp_w is None else {"tdp": power.tdp_w}
    inside, pj = chip.inside(), power.energy_pj
    streamed = chip.hbm_effective_bytes_per_s
    cycles = inside.num_tiles * inside.clock_hz
    operands = 2 * inside.tile.tensor.operand_bytes_per_cycle * cycles
    return {
        "tensor": chip.macs_per_s(element) * pj.mac[element] * _PJ,
        "tsram": (operands + streamed) * pj.tsram_byte * _PJ,
        "noc": streamed * pj.noc_byte * _PJ,
        "hbm": streamed * pj.hbm_byte * _PJ,
        "clock": inside.clock_hz * pj.clock_cycle * _PJ,
        "leakage": power.leakage_w or 0.0,
    }
