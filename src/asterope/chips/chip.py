"""The chip: its parts, what follows from them, and the checks that refuse nonsense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

from asterope.chips.figure import (
    Confidence,
    FrozenMap,
    Provenance,
    Value,
    check,
    did_you_mean,
    figure,
    figures_of,
    show,
    spec_of,
)
from asterope.chips.parts import (
    Achieved,
    Caches,
    Cluster,
    Energy,
    Hbm,
    Network,
    Noc,
    Power,
    Tile,
)
from asterope.chips.relations import check_relations
from asterope.errors import ChipError

__all__ = ["FIDELITIES", "Chip", "Fidelity", "FigureRow", "Inside", "figures"]

T = TypeVar("T")
Fidelity = Literal["roofline", "operator", "tile"]
FIDELITIES: tuple[Fidelity, ...] = get_args(Fidelity)
"""How closely work on a chip can be timed, the coarsest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inside:
    """The parts a tile-level simulation needs, all of them present."""

    clock_hz: float
    clusters: int
    tiles_per_cluster: int
    tile: Tile
    cluster: Cluster
    noc: Noc
    hbm_latency_cycles: int
    energy_pj: Energy

    @property
    def num_tiles(self) -> int:
        """Count the tiles of the chip."""
        return self.clusters * self.tiles_per_cluster


@dataclass(frozen=True, kw_only=True, slots=True)
class Chip:
    """One chip in one profile. Every figure has a provenance, and none contradicts another.

    Raises: ChipError whose `where` is the dotted path of the figure at fault.
    """

    name: str
    vendor: str
    profile: str
    base: str = ""
    """The built-in chip this one started from: its own name for a built-in, empty for none."""

    launch: str = figure("date", "announcement or first shipment")
    process: str | None = figure("text", "manufacturing process", optional=True)
    transistors: int | None = figure("transistors", "transistors of the chip", optional=True)
    die_mm2: float | None = figure("mm2", "die area", optional=True)
    clock_hz: float | None = figure("Hz", "clock of engines, SRAM and NoC", optional=True)
    clusters: int | None = figure("clusters", "clusters of the chip", optional=True)
    tiles_per_cluster: int | None = figure("tiles", "tiles of one cluster", optional=True)
    sram_total_bytes: int | None = figure("B", "all on-die SRAM", optional=True)
    sram_bytes_per_s: float | None = figure(
        "B/s",
        "the maker's total for on-die SRAM; timing uses the ports of the parts",
        optional=True,
    )
    host_bytes_per_s: float | None = figure("B/s", "link to the host, one direction", optional=True)
    launch_overhead_s: float = figure("s", "from one kernel's end to the next's start", zero=True)
    peak_flop_per_s: Mapping[str, float] = figure("flop/s", "the maker's dense peak")
    tile: Tile | None = None
    cluster: Cluster | None = None
    noc: Noc | None = None
    hbm: Hbm
    network: Network
    power: Power
    caches: Caches | None = None
    achieved: Achieved | None = None
    provenance: Mapping[str, Provenance] = field(hash=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "peak_flop_per_s", FrozenMap(self.peak_flop_per_s))
        object.__setattr__(self, "provenance", FrozenMap(self.provenance))
        _check_identity(self)
        _check_figures(self)
        if self.tile is not None:
            self.inside()
        check_relations(dict(figures_of(self)))

    @property
    def num_tiles(self) -> int | None:
        """Count the tiles, where they are public."""
        if self.clusters is None or self.tiles_per_cluster is None:
            return None
        return self.clusters * self.tiles_per_cluster

    @property
    def fidelities(self) -> tuple[Fidelity, ...]:
        """The fidelities that the chip is described for, the coarsest first."""
        if self.tile is not None:
            return ("roofline", "tile")
        return ("roofline", "operator") if self.achieved is not None else ("roofline",)

    @property
    def vector_flop_per_s(self) -> float | None:
        """Return the vector engines' rate on 16-bit lanes, an FMA being two, where public."""
        if self.tile is None or self.num_tiles is None or self.clock_hz is None:
            return None
        unit = self.tile.vector
        return 2 * unit.lanes_16bit * unit.ops_per_lane_cycle * self.num_tiles * self.clock_hz

    @property
    def hbm_effective_bytes_per_s(self) -> float:
        """Return the bandwidth that long reads reach.

        It is the maker's figure times the efficiency, or less where the reads under way, over the
        latency of each, do not add up to as much.
        """
        streamed = self.hbm.bandwidth_bytes_per_s * self.hbm.efficiency
        access, latency = self.hbm.access, self.hbm.latency_cycles
        if access is None or not latency or self.clock_hz is None:
            return streamed
        return min(streamed, access.reads_in_flight_bytes * self.clock_hz / latency)

    @property
    def idle_w(self) -> float | None:
        """Return the power drawn with the clock running and nothing to do, where described."""
        power = self.power
        if power.leakage_w is None or power.energy_pj is None or self.clock_hz is None:
            return None
        return power.leakage_w + power.energy_pj.clock_cycle * 1e-12 * self.clock_hz

    def macs_per_s(self, element: str) -> float:
        """Return the multiply-accumulates per second in an element format, all tiles busy.

        Raises: ChipError if the chip has no rate for the format.
        """
        if element not in self.peak_flop_per_s:
            raise ChipError(
                f"{self.name} has no tensor rate for {element!r}",
                where=f"peak_flop_per_s.{element}",
                hint=f"it has {', '.join(self.peak_flop_per_s)}",
            )
        if self.tile is None or self.num_tiles is None or self.clock_hz is None:
            return self.peak_flop_per_s[element] / 2
        return self.tile.tensor.macs_per_cycle(element) * self.num_tiles * self.clock_hz

    def inside(self) -> Inside:
        """Return what a tile-level simulation needs.

        Raises: ChipError naming the first part that is not described for this chip.
        """
        if self.tile is None:
            raise ChipError(
                f"the inside of {self.name} is not public, so it has no tile-level timing",
                where="tile",
                hint="use the roofline, or describe the tile in a what-if file",
            )
        latency, energy = self.hbm.latency_cycles, self.power.energy_pj
        return Inside(
            clock_hz=_needed(self.clock_hz, "clock_hz"),
            clusters=_needed(self.clusters, "clusters"),
            tiles_per_cluster=_needed(self.tiles_per_cluster, "tiles_per_cluster"),
            tile=self.tile,
            cluster=_needed(self.cluster, "cluster"),
            noc=_needed(self.noc, "noc"),
            hbm_latency_cycles=_needed(latency, "hbm.latency_cycles"),
            energy_pj=_needed(energy, "power.energy_pj"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureRow:
    """One figure as a table shows it."""

    path: str
    value: Value
    unit: str
    source: str
    confidence: Confidence
    note: str
    doc: str


def figures(chip: Chip) -> Iterator[FigureRow]:
    """List every figure of a chip with its unit, source and confidence."""
    for path, value in figures_of(chip):
        spec, origin = spec_of(Chip, path), chip.provenance[path]
        assert spec is not None, path
        yield FigureRow(
            path=path,
            value=value,
            unit=spec.unit,
            source=origin.source,
            confidence=origin.confidence,
            note=origin.note,
            doc=spec.doc,
        )


def _needed(part: T | None, path: str) -> T:
    if part is None:
        raise ChipError("is missing, and a described tile needs it", where=path)
    return part


def _check_identity(chip: Chip) -> None:
    for name in ("name", "vendor", "profile"):
        text = getattr(chip, name)
        if not (isinstance(text, str) and text and text.isprintable()):
            raise ChipError(f"{show(text)} is not a line of printable text", where=name)


def _check_figures(chip: Chip) -> None:
    """Refuse a figure of the wrong type or outside its limits, and one without a source."""
    present: set[str] = set()
    for path, value in figures_of(chip):
        spec = spec_of(Chip, path)
        if spec is None:
            raise ChipError("is not an element format with a rate", where=path)
        if type(check(spec, path, value)) is not type(value):
            raise ChipError(f"{show(value)} is not of type {spec.kind.__name__}", where=path)
        origin = chip.provenance.get(path)
        if origin is None or not origin.source:
            raise ChipError("has no source", where=path, hint="every figure says where it is from")
        if not (origin.source + origin.note).isprintable():
            raise ChipError("has a source that is not a line of printable text", where=path)
        present.add(path)
    for path in chip.provenance:
        if path not in present:
            hint = did_you_mean(path, present)
            raise ChipError("has a source but no value", where=path, hint=hint)
    if not chip.peak_flop_per_s:
        raise ChipError("is empty: give the peak of one format at least", where="peak_flop_per_s")
