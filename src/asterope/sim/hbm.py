"""HBM in the event engine's units: what data, opened rows and changes of direction take.

The channels are one server: a transfer is spread over all of them, and adds its bytes, the rows it
opens, and its share of turning from reads to writes. Reads have a second limit, bytes under way
over the latency of each (Little's law), which writes, that nobody waits for, do not have.
"""

from __future__ import annotations

from typing import Any

from asterope.chips import Chip
from asterope.sim.instructions import Transfer
from asterope.units import PS_PER_S

__all__ = ["block_ps", "memory_of", "read_ps"]


def memory_of(chip: Chip) -> dict[str, Any]:
    """Return the fields of `Machine` that are HBM's; accesses not described cost their bytes."""
    access = chip.hbm.access
    none = {"row_ps": 0.0, "interleave": 1, "page": 1, "hbm_channels": 1}
    if access is None:
        return {"hbm": _bytes_per_ps(chip), **none, "turn_ps": 0.0, "turn_bytes": 0}
    batch = access.channels * access.write_batch_bytes
    return {
        "hbm": _bytes_per_ps(chip),
        "row_ps": access.activate_s * PS_PER_S / access.channels,
        "interleave": access.interleave_bytes,
        "page": access.page_bytes,
        "hbm_channels": access.channels,
        "turn_ps": access.turnaround_s * PS_PER_S / batch,
        "turn_bytes": batch,
    }


def _bytes_per_ps(chip: Chip) -> float:
    return chip.hbm.bandwidth_bytes_per_s * chip.hbm.efficiency / PS_PER_S


def _moved_per_byte(transfer: Transfer, chip: Chip) -> float:
    """Return the bytes moved for one asked for: short runs cost a whole granule each."""
    granule = chip.inside().tile.dma.gather_granule_bytes
    return 1.0 if transfer.gather else max(1.0, granule / transfer.run_bytes)


def block_ps(transfer: Transfer | None, chip: Chip) -> float:
    """Return how long HBM's channels are at each byte of a block, with the rows it opens."""
    access = chip.hbm.access
    if transfer is None or access is None:
        return 1 / _bytes_per_ps(chip)
    run = transfer.run_bytes
    row_ps = access.activate_s * PS_PER_S / access.channels
    return (
        _moved_per_byte(transfer, chip) / _bytes_per_ps(chip)
        + access.rows_opened(run) * row_ps / run
    )


def read_ps(transfer: Transfer | None, chip: Chip) -> float:
    """Return the picoseconds for each byte that the reads under way allow."""
    access, inside = chip.hbm.access, chip.inside()
    if transfer is None or access is None:
        return 0.0
    latency_ps = inside.hbm_latency_cycles * (PS_PER_S / inside.clock_hz)
    return _moved_per_byte(transfer, chip) * latency_ps / access.reads_in_flight_bytes
