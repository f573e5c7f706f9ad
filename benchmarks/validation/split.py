"""Which measurements count, and which of them a fit sees."""

from __future__ import annotations

import zlib

from benchmarks.validation.measured import Measurement

from asterope.chips import Chip

__all__ = ["is_held_out", "is_possible"]

_HELD_OUT_FAMILIES = ("mla_prefill", "mla_decode")
_COLLECTIVES = ("all_reduce", "fused_all_reduce", "all_gather", "reduce_scatter", "all_to_all")


def is_held_out(row: Measurement) -> bool:
    """Say whether a fit must not see a row: its operator is held out, or its shape is.

    One shape of three is, with all its sizes. Collectives have three shapes, the numbers of chips:
    one size of three is held out there.
    """
    if row.family in _HELD_OUT_FAMILIES:
        return True
    key = row.shape if row.family in _COLLECTIVES else _series(row)
    return zlib.crc32(repr((row.family, key)).encode()) % 3 == 0


def _series(row: Measurement) -> tuple[float, ...]:
    """Return the shape without its size: rows of a product, keys and batch, tokens and skew."""
    return row.shape[:-1] if row.family == "gemm" else row.shape[:-2]


def is_possible(row: Measurement, chip: Chip) -> bool:
    """Say whether the chip's published memory can have delivered the bytes in the time."""
    return row.predict(chip).hbm_bytes <= row.time_s * chip.hbm.bandwidth_bytes_per_s
