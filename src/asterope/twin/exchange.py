"""What chips that share a layer send each other, and how long that takes.

After the output projection and after the MLP each chip has a part of the sum that the residual
gets; the head gives each a part of the logits, which all need. Rows go to the chips of their
experts and come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from asterope import operators
from asterope.chips import Chip, Fidelity
from asterope.errors import ConfigError
from asterope.runtime import Timeline
from asterope.sim import Result
from asterope.units import PS_PER_S

__all__ = ["Exchange"]

_PJ = 1e-12
_AFTER: Mapping[str, str] = MappingProxyType(
    {"output": "all_reduce", "down": "all_reduce", "head": "all_gather"}
)
_NAME = "network"


@dataclass(frozen=True, slots=True)
class Exchange:
    """Collectives among `chips` chips, at the fidelity that kernels are timed at.

    Times are those of a collective alone. The roofline is what each chip sends at the full rate of
    its links.
    """

    chip: Chip
    chips: int
    fidelity: Fidelity

    def after(self, place: str, made: torch.Tensor, timeline: Timeline) -> None:
        """Note on a timeline what follows a linear layer in some place that made a tensor.

        Raises: ConfigError for more chips than the network joins; ChipError if its links are not
        described.
        """
        if self.chips == 1 or place not in _AFTER:
            return
        name = _AFTER[place]
        num_bytes = made.numel() * made.element_size()
        if name == "all_gather":
            num_bytes *= self.chips
        self.among(self.chips, name, num_bytes, place, timeline)

    def among(self, chips: int, name: str, num_bytes: int, place: str, timeline: Timeline) -> None:
        """Note a collective of so many bytes among chips, if they are several.

        Raises: as `after`.
        """
        if chips > 1:
            timeline.note(name, (1, 1, 1), self._result(name, num_bytes, chips), place)

    def _result(self, name: str, num_bytes: int, chips: int) -> Result:
        if chips > self.chip.network.domain_chips:
            raise ConfigError(
                f"{self.chip.name} joins {self.chip.network.domain_chips} chips, not {chips}",
                where="chips", hint="use fewer that share a model",
            )  # fmt: skip
        sent = round(operators.COLLECTIVES[name](chips) * num_bytes)
        roofline_s = sent / self.chip.network.per_direction_bytes_per_s
        time_s = roofline_s
        if self.fidelity != "roofline":
            time_s = operators.collective(self.chip, name, num_bytes, chips, fused=True).time_s
        joules = self._energy_parts_j(sent, time_s)
        time_ps = round(time_s * PS_PER_S)
        return Result(
            kernel=name, chip=f"{self.chip.name}:{self.chip.profile}", fidelity=self.fidelity,
            time_ps=time_ps, breakdown_ps={_NAME: time_ps}, bound_by=_NAME,
            occupancy={_NAME: roofline_s / time_s}, bytes={_NAME: sent}, asked_bytes=0, flop={},
            vector_ops=0, instructions=0, energy_j=sum(joules.values()) if joules else None,
            energy_parts_j=joules, roofline_ps=round(roofline_s * PS_PER_S),
            clock_hz=self.chip.clock_hz,
        )  # fmt: skip

    def _energy_parts_j(self, sent: int, time_s: float) -> dict[str, float]:
        """Return what one chip spends; with coefficients, on sending and on waiting."""
        power = self.chip.power
        if self.fidelity != "tile":
            return {} if power.tdp_w is None else {"tdp": power.tdp_w * time_s}
        inside, voltage = self.chip.inside(), power.voltage(power.set_clock)
        cycles = inside.clock_hz * power.set_clock * time_s
        return {
            _NAME: sent * inside.energy_pj.network_byte * _PJ,
            "clock": cycles * inside.energy_pj.clock_cycle * voltage**2 * _PJ,
            "leakage": (power.leakage_w or 0.0) * voltage * time_s,
        }
