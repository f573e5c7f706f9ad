"""Constants with units. `GB` is decimal and `GiB` is binary; they are never mixed up here."""

from __future__ import annotations

import math

__all__ = [
    "GB",
    "GHZ",
    "GIB",
    "KB",
    "KIB",
    "MB",
    "MHZ",
    "MIB",
    "PS_PER_S",
    "SECONDS_PER_HOUR",
    "TB",
    "TFLOPS",
    "si",
]

KB, MB, GB, TB = 10**3, 10**6, 10**9, 10**12
KIB, MIB, GIB = 2**10, 2**20, 2**30
MHZ, GHZ = 10**6, 10**9
TFLOPS = 10**12
PS_PER_S = 10**12
SECONDS_PER_HOUR = 3600

_PREFIXES = (
    (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"),
    (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"),
)  # fmt: skip


def si(value: float, unit: str, digits: int = 3) -> str:
    """Write a value with the SI prefix people read: `si(7e12, "B/s")` is `7 TB/s`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    for scale, prefix in _PREFIXES:
        if abs(value) >= scale * (1 - 0.5 * 10**-digits):
            return f"{value / scale:.{digits}g} {prefix}{unit}"
    return f"{value:.{digits}g} {unit}"
