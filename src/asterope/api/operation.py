"""What the times of single operations have in common, and those of their mappings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["MappedTime", "OperationTime"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OperationTime:
    """The time and energy of an operation on one chip; `parts`, `energy_parts_j` add up to them.

    `timed_by` is `tile`, `operator` or `roofline`; `peak_share` is the share of the maker's peak of
    the format that was multiplied in, `rate`. `clock_hz` is the lowest clock of its kernels, which
    took `throttled_s` longer for the power limit. Timed by `tile`, energy is counted; otherwise it
    is that of the TDP.
    """

    chip: str
    timed_by: str
    time_s: float
    flop: int
    hbm_bytes: float
    rate: str
    peak_share: float
    bound_by: str
    parts: Mapping[str, float]
    mapping: str
    energy_j: float | None
    energy_parts_j: Mapping[str, float]
    clock_hz: float | None
    throttled_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MappedTime:
    """One way to cut an operation into blocks, with the time of the whole that it gives.

    Sums are taken in `split` parts; putting these together belongs to the time. `estimated_s` is
    the closed form that the kernel library chooses by, of the kernel alone.
    """

    stages: int
    split: int
    programs: int
    estimated_s: float
    time_s: float
    hbm_bytes: int
    bound_by: str
    is_chosen: bool
