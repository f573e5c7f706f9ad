"""What an operator's time is made of, and the figures of a chip that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asterope.chips import Achieved, Chip, get, names
from asterope.errors import ChipError, ConfigError

__all__ = [
    "OperatorTime",
    "achieved",
    "check_sizes",
    "num_cores",
    "overlapped",
    "peak_flop_per_s",
    "rate_on",
    "share",
    "side_by_side",
    "timed",
]

_OVERLAP = 4
"""Exponent of the sum of engines that work side by side: none waits for all of the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorTime:
    """The time of one operator; `parts` add up to it.

    `mapping` says in words how the work was cut. `bound_by` is the longest part.
    """

    time_s: float
    flop: float
    hbm_bytes: float
    parts: Mapping[str, float]
    bound_by: str
    mapping: str


def timed(
    parts: Mapping[str, float], *, flop: float = 0, hbm_bytes: float = 0, mapping: str = ""
) -> OperatorTime:
    """Add up the parts of an operator's time."""
    return OperatorTime(
        time_s=sum(parts.values()),
        flop=flop,
        hbm_bytes=hbm_bytes,
        parts=dict(parts),
        bound_by=max(parts, key=lambda name: parts[name]),
        mapping=mapping,
    )


def side_by_side(tensor_s: Any, hbm_s: Any) -> Any:
    """Return the time of arithmetic and memory side by side, never less than either."""
    return (tensor_s**_OVERLAP + hbm_s**_OVERLAP) ** (1 / _OVERLAP)


def overlapped(tensor_s: float, hbm_s: float) -> dict[str, float]:
    """Split that time: the longer of the two, and what it waits for the other."""
    total = side_by_side(tensor_s, hbm_s)
    longer = "tensor" if tensor_s >= hbm_s else "hbm"
    return {longer: max(tensor_s, hbm_s), "waiting": total - max(tensor_s, hbm_s)}


def achieved(chip: Chip) -> Achieved:
    """Return what libraries reach on a chip.

    Raises: ChipError if the chip has no such figures.
    """
    if chip.achieved is None:
        raise ChipError(
            f"{chip.name} is not calibrated on measured operators",
            where="achieved",
            hint=f"calibrated chips: {', '.join(n for n in names() if get(n).achieved)}",
        )
    return chip.achieved


def check_sizes(**sizes: int) -> None:
    """Refuse sizes below one.

    Raises: ConfigError naming the first.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{size} is not a size", where=name, hint="sizes are 1 or more")


def num_cores(chip: Chip) -> int:
    """Return the number of cores.

    Raises: ChipError if it is not described.
    """
    if chip.num_tiles is None:
        raise ChipError("is missing, and operators need the number of cores", where="clusters")
    return chip.num_tiles


def rate_on(chip: Chip, element: str) -> str:
    """Return the format a chip multiplies an element in: its own, or the narrowest wider one.

    Raises: ChipError if there is none.
    """
    for name in (element, *_WIDER.get(element, ())):
        if name in chip.peak_flop_per_s:
            return name
    chip.macs_per_s(element)  # raises, naming what there is
    return element


def peak_flop_per_s(chip: Chip, element: str) -> float:
    """Return the maker's peak in the format that a chip multiplies an element in.

    Raises: ChipError if there is none.
    """
    return chip.peak_flop_per_s[rate_on(chip, element)]


def share(fractions: Mapping[str, float], element: str) -> float:
    """Return a format's share of its peak, or that of the nearest wider format with one."""
    for name in (element, *_WIDER.get(element, ())):
        if name in fractions:
            return fractions[name]
    return min(fractions.values())


_WIDER = {
    "fp4": ("fp6", "fp8", "bf16"),
    "fp6": ("fp8", "bf16"),
    "fp8": ("bf16",),
    "int4": ("int8",),
    "fp16": ("bf16",),
}
