"""The parts of a chip: plain numbers, each with its unit and meaning beside it.

Bandwidths of on-die parts are per clock cycle, so that one description serves every clock. A part
that is not public for a chip is None there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from asterope.chips.figure import FrozenMap, figure

__all__ = [
    "Achieved",
    "Caches",
    "Cluster",
    "Control",
    "Energy",
    "Hbm",
    "HbmAccess",
    "Network",
    "Noc",
    "Power",
    "Reshaper",
    "TensorUnit",
    "Tile",
    "TileDma",
    "Tsram",
    "VectorUnit",
    "VoltageScaling",
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
    banks: int = figure("banks", "banks of one tile; each reads or writes one line a cycle")
    bank_bytes_per_cycle: int = figure("B/cycle", "a line: consecutive bytes in one bank")


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
    kernel_cycles: int = figure(
        "cycles", "a kernel's start and end, outside of its instructions", zero=True
    )
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
    sram_share: float = figure(
        "fraction",
        "of a cluster's port, what traffic between SRAMs gets while traffic with HBM waits",
        at_most=1.0,
    )
    multicast: bool = figure("yes/no", "one read can reach many tiles")


@dataclass(frozen=True, kw_only=True, slots=True)
class HbmAccess:
    """What the pattern of accesses costs: rows opened, changes of direction, reads under way."""

    channels: int = figure("channels", "channels of all stacks that open rows by themselves")
    interleave_bytes: int = figure("B", "consecutive bytes on one channel")
    page_bytes: int = figure("B", "consecutive bytes that one opened row of a channel holds")
    activate_s: float = figure("s", "data time a channel loses for each row it opens", zero=True)
    turnaround_s: float = figure(
        "s", "data time a channel loses from reads to writes and back", zero=True
    )
    write_batch_bytes: int = figure("B", "written by a channel between reads, where both wait")
    reads_in_flight_bytes: int = figure("B", "read requests under way, all channels together")

    def rows_opened(self, run_bytes: float) -> float:
        """Count the rows that a run of consecutive bytes opens, all channels together."""
        pieces = min(math.ceil(run_bytes / self.interleave_bytes), self.channels)
        return max(pieces, math.ceil(run_bytes / self.page_bytes))


@dataclass(frozen=True, kw_only=True, slots=True)
class Hbm:
    """The chip's memory. The maker's bandwidth and what is left of it for data are two figures."""

    capacity_bytes: int = figure("B", "memory of the chip")
    bandwidth_bytes_per_s: float = figure("B/s", "the maker's figure")
    efficiency: float = figure(
        "fraction", "share of the bandwidth that is left for data in long streams", at_most=1.0
    )
    kind: str | None = figure("text", "memory standard", optional=True)
    stacks: int | None = figure("stacks", "memory stacks", optional=True)
    latency_cycles: int | None = figure(
        "cycles", "request to first byte in a tile, loaded", zero=True, optional=True
    )
    access: HbmAccess | None = None


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
    packet_bytes: int | None = figure("B", "most data in one packet", optional=True)
    packet_overhead_bytes: int | None = figure(
        "B", "headers, trailers and gap around a packet's data", optional=True
    )
    collective_start_s: float | None = figure(
        "s", "from a collective's start to its first packet", optional=True
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
    """Energy in picojoules of each event the simulator counts, at the clock of the profile.

    Operations include their registers: the tensor unit's accumulators, the vector unit's operands.
    """

    mac: Mapping[str, float] = figure("pJ/MAC", "tensor multiply-accumulate", zero=True)
    vector_op_16bit: float = figure("pJ/op", "vector operation on 16 bits", zero=True)
    vector_op_32bit: float = figure("pJ/op", "vector operation on 32 bits", zero=True)
    transcendental_op: float = figure("pJ/op", "exp, log, rsqrt and kin", zero=True)
    move_16bit: float = figure("pJ/element", "change of layout or type, 16 bits", zero=True)
    move_32bit: float = figure("pJ/element", "change of layout or type, 32 bits", zero=True)
    tsram_byte: float = figure("pJ/B", "TSRAM read or write", zero=True)
    csram_byte: float = figure("pJ/B", "CSRAM read or write", zero=True)
    noc_byte: float = figure("pJ/B", "one crossing of the on-die network", zero=True)
    hbm_byte: float = figure("pJ/B", "HBM read or write, PHY and controller included", zero=True)
    network_byte: float = figure("pJ/B", "sent to another chip", zero=True)
    clock_cycle: float = figure("pJ/cycle", "clock and idle logic of the whole chip", zero=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mac", FrozenMap(self.mac))


@dataclass(frozen=True, kw_only=True, slots=True)
class VoltageScaling:
    """How the supply voltage follows a lowered clock: linear to a least voltage, then constant.

    Energy on the die goes with the square of the voltage, leakage with the voltage.
    """

    least_voltage: float = figure(
        "fraction", "least voltage over that of the full clock", at_most=1.0
    )
    least_voltage_clock: float = figure(
        "fraction", "share of the full clock below which the voltage stays", at_most=1.0
    )
    set_clock: float = figure(
        "fraction", "share of the full clock that a deployment sets", at_most=1.0
    )

    def voltage(self, clock_share: float) -> float:
        """Return the voltage at a share of the full clock, over that at the full clock."""
        if clock_share >= 1:
            return 1.0
        if clock_share <= self.least_voltage_clock:
            return self.least_voltage
        way = (clock_share - self.least_voltage_clock) / (1 - self.least_voltage_clock)
        return self.least_voltage + (1 - self.least_voltage) * way


@dataclass(frozen=True, kw_only=True, slots=True)
class Power:
    """The power limit, and what the chip draws for what it does where that is described."""

    tdp_w: float | None = figure("W", "thermal design power of the chip", optional=True)
    leakage_w: float | None = figure("W", "drawn with the clock stopped", zero=True, optional=True)
    claimed_flop_per_j: Mapping[str, float] = figure("flop/J", "the maker's peak over its power")
    energy_pj: Energy | None = None
    scaling: VoltageScaling | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "claimed_flop_per_j", FrozenMap(self.claimed_flop_per_j))

    @property
    def set_clock(self) -> float:
        """The clock that a deployment sets, as a share of the full one; 1 if it is not said."""
        return 1.0 if self.scaling is None else self.scaling.set_clock

    def voltage(self, clock_share: float) -> float:
        """Return the voltage over that at the full clock; 1 where nothing is said of it."""
        return 1.0 if self.scaling is None else self.scaling.voltage(clock_share)


@dataclass(frozen=True, kw_only=True, slots=True)
class Caches:
    """On-die memories of chips whose inside is otherwise not described."""

    scratchpad_bytes: int | None = figure("B", "software-managed SRAM of all cores", optional=True)
    l2_bytes: int | None = figure("B", "second-level cache", optional=True)
    llc_bytes: int | None = figure("B", "last-level cache beyond L2", optional=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Achieved:
    """What the maker's libraries reach of the maker's figures, on chips timed by operators.

    A core is a streaming multiprocessor or a compute unit. The values are fitted to measured
    operators, or carried over from a chip where they were.
    """

    tensor_fraction: Mapping[str, float] = figure(
        "fraction", "share of the tensor peak in large products", at_most=1.0
    )
    grouped_fraction: float = figure(
        "fraction", "rate of the products of experts, as a share of large ones", at_most=1.0
    )
    gather_fraction: float = figure(
        "fraction", "share of the bandwidth in gathering rows of experts and adding up", at_most=1.0
    )
    block_scaled_fraction: float = figure(
        "fraction", "rate of products scaled in blocks, as a share of others", at_most=1.0
    )
    grouped_block_fraction: float = figure(
        "fraction", "rate of experts scaled in blocks, as a share of others", at_most=1.0
    )
    rounding_fraction: float = figure(
        "fraction", "share of the bandwidth where experts' rows are scaled in blocks", at_most=1.0
    )
    visit_s: float = figure("s", "a held expert that kernels scaled in blocks look up", zero=True)
    widened_fraction: float = figure(
        "fraction", "rate of experts whose weights are stored narrower than multiplied", at_most=1.0
    )
    triton_fraction: float = figure(
        "fraction", "rate of experts in Triton's kernels, which widen MXFP4 weights", at_most=1.0
    )
    routing_s: float = figure("s", "what sorting rows takes more around these", zero=True)
    attention_fraction: Mapping[str, float] = figure(
        "fraction", "share of the tensor peak in attention, softmax between products", at_most=1.0
    )
    hbm_fraction: float = figure("fraction", "share of the bandwidth in long streams", at_most=1.0)
    cache_fraction: float = figure(
        "fraction", "share of the bandwidth in reading caches of keys and values", at_most=1.0
    )
    core_share: float = figure("shares", "one core's own stream, in even shares of the bandwidth")
    kernel_s: float = figure("s", "start and end of a kernel in a recorded graph", zero=True)
    wave_s: float = figure("s", "fill and drain of each further wave of blocks", zero=True)
    program_s: Mapping[str, float] = figure(
        "s", "wait of a program of decode attention that queries share, by the cache", zero=True
    )
    attention_block_s: float = figure("s", "fixed share of one block of query rows", zero=True)
    link_fraction: float = figure("fraction", "share of the links in long messages", at_most=1.0)
    pair_fraction: float = figure(
        "fraction", "share of the links in long messages between two chips", at_most=1.0
    )
    collective_s: float = figure("s", "least time of a collective among two chips", zero=True)
    hop_s: float = figure("s", "what each further chip adds to a short collective", zero=True)
    fused_s: float = figure("s", "least time of an all-reduce in a recorded graph", zero=True)
    rendezvous_s: float = figure("s", "extra start of full-rate collectives, a chip", zero=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensor_fraction", FrozenMap(self.tensor_fraction))
        object.__setattr__(self, "attention_fraction", FrozenMap(self.attention_fraction))
        object.__setattr__(self, "program_s", FrozenMap(self.program_s))
