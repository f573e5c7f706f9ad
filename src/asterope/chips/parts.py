"""The parts of a chip: plain numbers, each with its unit and meaning beside it.

Bandwidths of on-die parts are per clock cycle, so that one description serves every clock. A part
that is not public for a chip is None there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asterope.chips.figure import FrozenMap, figure

__all__ = [
    "Caches",
    "Cluster",
    "Control",
    "Energy",
    "Hbm",
    "Network",
    "Noc",
    "Power",
    "Reshaper",
    "TensorUnit",
    "Tile",
    "TileDma",
    "Tsram",
    "VectorUnit",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorUnit:
    """The tile's matrix engine (TTU): rows x depth x cols multiply-accumulates in each cycle."""

    rows: int = figure("rows", "rows of the output block produced at once")
    cols: int = figure("columns", "columns of the output block produced at once")
    depth_per_cycle: Mapping[str, int] = figure("elements/cycle", "elements of K taken per cycle")
    operand_bytes_per_cycle: int = figure("B/cycle", "TSRAM feed of each of the two operands")
    startup_cycles: int = figure("cycles", "pipeline fill before the first result", zero=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth_per_cycle", FrozenMap(self.depth_per_cycle))

    def macs_per_cycle(self, element: str) -> int:
        """Count the multiply-accumulates of one cycle in an element format."""
        return self.rows * self.cols * self.depth_per_cycle[element]


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorUnit:
    """The tile's vector engine (TVP)."""

    lanes_16bit: int = figure("lanes", "lanes for elements of 16 bits or fewer")
    lanes_32bit: int = figure("lanes", "lanes for 32-bit elements")
    ops_per_lane_cycle: float = figure("op/lane/cycle", "vector operations; an FMA is one")
    transcendental_ops_per_lane_cycle: float = figure("op/lane/cycle", "exp, log, rsqrt and kin")
    startup_cycles: int = figure("cycles", "pipeline fill before the first result", zero=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reshaper:
    """The tile's layout and type conversion engine: elements per cycle by kind."""

    lanes_8bit_int: int = figure("lanes", "8-bit integer elements per cycle")
    lanes_16bit_int: int = figure("lanes", "16-bit integer elements per cycle")
    lanes_32bit_int: int = figure("lanes", "32-bit integer elements per cycle")
    lanes_float: int = figure("lanes", "FP4, FP6, FP8, FP16 and BF16 elements per cycle")
    lanes_fp32: int = figure("lanes", "FP32 elements per cycle")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tsram:
    """The tile's scratchpad."""

    capacity_bytes: int = figure("B", "scratchpad of one tile")
    read_bytes_per_cycle: int = figure("B/cycle", "read ports of one tile together")
    write_bytes_per_cycle: int = figure("B/cycle", "write ports of one tile together")


@dataclass(frozen=True, kw_only=True, slots=True)
class TileDma:
    """The tile's DMA engine (TDMA), between TSRAM and the NoC."""

    channels: int = figure("channels", "transfers in flight at once")
    ingest_bytes_per_cycle: int = figure("B/cycle", "into one tile from the NoC")
    egress_bytes_per_cycle: int = figure("B/cycle", "out of one tile to the NoC")
    latency_cycles: int = figure("cycles", "issue to first byte, inside the tile", zero=True)
    gather_granule_bytes: int = figure("B", "least bytes moved for one gathered element")


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """The tile's control processor and its hardware queues."""

    issue_cycles: int = figure("cycles", "control processor time per macro-instruction", zero=True)
    queue_depth: int = figure("instructions", "macro-instructions waiting in each engine's queue")
    max_pre_semaphores: int = figure("semaphores", "semaphores one macro-instruction waits on")
    max_post_semaphores: int = figure("semaphores", "semaphores one macro-instruction signals")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One tile: engines, scratchpad, DMA and control."""

    tensor: TensorUnit
    vector: VectorUnit
    reshaper: Reshaper
    tsram: Tsram
    dma: TileDma
    control: Control


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """What the tiles of a cluster share."""

    csram_bytes: int = figure("B", "shared SRAM of one cluster")
    csram_bytes_per_cycle: int = figure("B/cycle", "CSRAM bandwidth of one cluster")
    csram_latency_cycles: int = figure("cycles", "request to first byte from CSRAM", zero=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Noc:
    """The on-die network: a 1-D mesh of tiles in each cluster, and a fabric of clusters."""

    global_bytes_per_cycle: int = figure("B/cycle", "one cluster's port, each direction")
    hop_cycles: int = figure("cycles", "one hop of the mesh", zero=True)
    multicast: bool = figure("yes/no", "one read can reach many tiles")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hbm:
    """The chip's memory. The maker's bandwidth and what kernels reach of it are two figures."""

    capacity_bytes: int = figure("B", "memory of the chip")
    bandwidth_bytes_per_s: float = figure("B/s", "the maker's figure")
    efficiency: float = figure("fraction", "share of the bandwidth that kernels reach", at_most=1.0)
    kind: str | None = figure("text", "memory standard", optional=True)
    stacks: int | None = figure("stacks", "memory stacks", optional=True)
    latency_cycles: int | None = figure(
        "cycles", "request to first byte in a tile, loaded", zero=True, optional=True
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """The links between chips, each direction counted once."""

    per_direction_bytes_per_s: float = figure("B/s", "all scale-up links of a chip, one direction")
    topology: str = figure("text", "how the scale-up links connect")
    domain_chips: int = figure("chips", "chips that the scale-up network reaches")
    one_way_latency_s: float = figure("s", "small message, memory to memory, through a switch")
    fixed_link_latency_s: float | None = figure(
        "s", "small message, memory to memory, over a fixed link", optional=True
    )
    fixed_ns_bytes_per_s: float | None = figure(
        "B/s", "fixed links to the north-south neighbour in the tray", optional=True
    )
    fixed_ew_bytes_per_s: float | None = figure(
        "B/s", "fixed links to the east-west neighbour in the tray", optional=True
    )
    fixed_diagonal_bytes_per_s: float | None = figure(
        "B/s", "fixed links to the diagonal neighbour in the tray", optional=True
    )
    switched_bytes_per_s: float | None = figure(
        "B/s", "switched links of a chip, one direction", optional=True
    )
    off_rack_bytes_per_s: float | None = figure(
        "B/s", "share of a chip in the rack's uplinks, one direction", optional=True
    )
    tray_chips: int | None = figure("chips", "chips joined by fixed links", optional=True)
    rack_chips: int | None = figure("chips", "chips under one first-tier switch", optional=True)
    pair_bytes_per_s: float | None = figure(
        "B/s", "largest rate between two chips over a direct link", optional=True
    )
    scale_out_bytes_per_s: float | None = figure(
        "B/s", "separate scale-out network of a chip, one direction", optional=True
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """Energy in picojoules of each event the simulator counts."""

    mac: Mapping[str, float] = figure("pJ/MAC", "tensor multiply-accumulate", zero=True)
    vector_op_16bit: float = figure("pJ/op", "vector operation on 16 bits", zero=True)
    vector_op_32bit: float = figure("pJ/op", "vector operation on 32 bits", zero=True)
    transcendental_op: float = figure("pJ/op", "exp, log, rsqrt and kin", zero=True)
    tsram_byte: float = figure("pJ/B", "TSRAM read or write", zero=True)
    csram_byte: float = figure("pJ/B", "CSRAM read or write", zero=True)
    noc_byte: float = figure("pJ/B", "one crossing of the on-die network", zero=True)
    hbm_byte: float = figure("pJ/B", "HBM read or write, PHY and controller included", zero=True)
    network_byte: float = figure("pJ/B", "sent to another chip", zero=True)
    clock_cycle: float = figure("pJ/cycle", "clock and idle logic of the whole chip", zero=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mac", FrozenMap(self.mac))


@dataclass(frozen=True, kw_only=True, slots=True)
class Power:
    """The power limit, and what the chip draws for what it does where that is described."""

    tdp_w: float | None = figure("W", "thermal design power of the chip", optional=True)
    leakage_w: float | None = figure("W", "drawn with the clock stopped", zero=True, optional=True)
    energy_pj: Energy | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Caches:
    """On-die memories of chips whose inside is otherwise not described."""

    scratchpad_bytes: int | None = figure("B", "software-managed SRAM of all cores", optional=True)
    l2_bytes: int | None = figure("B", "second-level cache", optional=True)
    llc_bytes: int | None = figure("B", "last-level cache beyond L2", optional=True)
