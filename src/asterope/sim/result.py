"""What a simulation says: time, where it went, what moved, what it cost in joules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from asterope.sim.lines import LineTime
from asterope.units import PS_PER_S

__all__ = ["Event", "Result"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One executed macro-instruction, for traces.

    `waits` are the numbers, on the same tile, of the instructions whose signals it needed; `cause`
    is the index, among the launch's events, of the last one that its start came after, or -1.
    """

    tile: int
    engine: str
    label: str
    loc: str
    number: int
    start_ps: int
    end_ps: int
    bytes: int
    waits: tuple[int, ...]
    cause: int = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One launch on a chip.

    `breakdown_ps` splits the critical path: it adds up to `time_ps`. `occupancy` is busy time over
    total time of each engine and resource, averaged over its instances. `bytes` counts what each
    memory moved; `asked_bytes` what the program's loads and stores asked for. `energy_parts_j`
    splits the energy by what it is spent on and adds up to it. `lines` splits the critical path by
    source line, where that was asked for.

    It ran at `clock_share` of the chip's clock: what the deployment sets, or less if it would draw
    more than the TDP there. Then `is_throttled`, and it took `throttled_ps` longer for that, which
    is less than zero where requests that come later happen to share memory better.
    `clock_hz` is the clock it ran at, None where the chip's is not public.
    """

    kernel: str
    chip: str
    fidelity: str
    time_ps: int
    breakdown_ps: Mapping[str, int]
    bound_by: str
    occupancy: Mapping[str, float]
    bytes: Mapping[str, int]
    asked_bytes: int
    flop: Mapping[str, int]
    vector_ops: int
    instructions: int
    energy_j: float | None
    energy_parts_j: Mapping[str, float] = field(default_factory=dict)
    roofline_ps: int = 0
    tsram_bytes: int = 0
    events: tuple[Event, ...] = ()
    lines: tuple[LineTime, ...] = ()
    clock_hz: float | None = None
    clock_share: float = 1.0
    is_throttled: bool = False
    throttled_ps: int = 0

    @property
    def time_s(self) -> float:
        """The time in seconds."""
        return self.time_ps / PS_PER_S

    @property
    def power_w(self) -> float | None:
        """The mean power, None where the energy is not known or no time passed."""
        return self.energy_j / self.time_s if self.energy_j is not None and self.time_ps else None

    @property
    def total_flop(self) -> int:
        """Floating-point operations of the tensor engines, two a multiply-accumulate."""
        return sum(self.flop.values())

    @property
    def hbm_bytes(self) -> int:
        """Bytes read from and written to HBM."""
        return self.bytes.get("hbm", 0)
