"""Collectives on a fabric of trays: chips joined by fixed links, and switches between trays.

Source of the ways: Microsoft on Maia 200's collectives, "broadcast for small, hierarchical for
medium, ring for large messages"; what each costs follows from the links.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from asterope.chips import Chip
from asterope.errors import ChipError, ConfigError
from asterope.operators.timing import OperatorTime, timed

__all__ = ["is_fabric", "on_fabric"]

_TIMES: Mapping[str, int] = MappingProxyType(
    {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1}
)
"""How often parts are exchanged. What all_to_all sends is another for each chip."""


def is_fabric(chip: Chip) -> bool:
    """Say whether a chip's network is described as trays and switches."""
    return chip.network.tray_chips is not None and chip.network.switched_bytes_per_s is not None


def on_fabric(chip: Chip, name: str, num_bytes: float, chips: int) -> OperatorTime:
    """Time a collective of `num_bytes` in all among whole trays of chips, or within one tray.

    The fastest of: each chip sends to every other; trays exchange, then chips in them; rings over
    all links, whose rate is that of the narrowest cut between chips, trays or racks. Adding up
    is as fast as receiving.

    Raises: ConfigError for chips that are no whole trays, or more than the fabric has; ChipError
    for a fabric that is not wholly described.
    """
    links = _Links.among(chip, chips)
    ways = {"broadcast": links.broadcast(name, num_bytes)}
    if name == "all_reduce":
        ways = {"two broadcasts": ways["broadcast"], "broadcast": links.whole(num_bytes)}
    if name in _TIMES:
        ways["ring"] = links.ring(name, num_bytes)
        if links.trays > 1:
            ways["hierarchical"] = links.hierarchical(name, num_bytes)
    chosen = min(ways, key=lambda way: sum(ways[way].values()))
    where = f"{links.trays} trays of {links.members}" if links.trays > 1 else f"{chips} of a tray"
    return timed(ways[chosen], mapping=f"{where}, {chosen}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Links:
    """What `trays` times `members` chips reach each other by: payload rates, and latencies."""

    trays: int
    members: int
    rack_trays: int
    fixed: tuple[float, ...]
    switched: float
    off_rack: float
    fixed_s: float
    switched_s: float
    start_s: float

    @classmethod
    def among(cls, chip: Chip, chips: int) -> _Links:
        net = chip.network
        needed = (
            net.fixed_ns_bytes_per_s, net.fixed_ew_bytes_per_s, net.fixed_diagonal_bytes_per_s,
            net.switched_bytes_per_s, net.off_rack_bytes_per_s, net.fixed_link_latency_s,
            net.packet_bytes, net.packet_overhead_bytes, net.collective_start_s, net.tray_chips,
            net.rack_chips,
        )  # fmt: skip
        if any(figure is None for figure in needed):
            raise ChipError(
                "is not described to the last link", where="network",
                hint="collectives need the fixed and switched links, their latency and packets",
            )  # fmt: skip
        ns, ew, diagonal, switched, off_rack, fixed_s, payload, overhead, start_s, tray, rack = (
            figure or 0.0 for figure in needed
        )
        if chips > net.domain_chips or (chips > tray and chips % tray):
            raise ConfigError(
                f"{chips} chips are no whole trays of the fabric", where="chips",
                hint=f"2 to {tray:g}, or a multiple of {tray:g} up to {net.domain_chips:,}",
            )  # fmt: skip
        members = min(chips, int(tray))
        rates = sorted((ns, ew, diagonal))
        fixed = rates[-1:] if members == 2 else rates[: members - 1]
        share = payload / (payload + overhead)
        return cls(
            trays=chips // members, members=members, rack_trays=int(rack // tray),
            fixed=tuple(rate * share for rate in fixed), switched=switched * share,
            off_rack=off_rack * share, fixed_s=fixed_s, switched_s=net.one_way_latency_s,
            start_s=start_s,
        )  # fmt: skip

    @property
    def chips(self) -> int:
        return self.trays * self.members

    def broadcast(self, name: str, num_bytes: float) -> Mapping[str, float]:
        """Send each other chip one part, straight to it."""
        latency_s, links_s = self._straight(num_bytes / self.chips)
        return self._parts(latency_s, links_s, times=_TIMES.get(name, 1))

    def whole(self, num_bytes: float) -> Mapping[str, float]:
        """Send each other chip all; each adds up for itself."""
        return self._parts(*self._straight(num_bytes), times=1)

    def _straight(self, each: float) -> tuple[float, float]:
        """Return latency and time on the links of `each` bytes for each other chip."""
        far = (self.chips - self.members) * each
        beyond = max(0, self.chips - self.rack_trays * self.members) * each
        links_s = max(each / min(self.fixed), self._between_trays_s(far, beyond))
        return self.fixed_s if self.trays == 1 else self.switched_s, links_s

    def hierarchical(self, name: str, num_bytes: float) -> Mapping[str, float]:
        """Let chips of the same place exchange between trays, then those of a tray.

        A sum is scattered and then gathered, each in both.
        """
        part = num_bytes / self.chips
        far = (self.trays - 1) * part
        beyond = max(0, self.trays - self.rack_trays) * part
        links_s = self._between_trays_s(far, beyond) + self.trays * part / min(self.fixed)
        return self._parts(self.switched_s + self.fixed_s, links_s, times=_TIMES[name])

    def ring(self, name: str, num_bytes: float) -> Mapping[str, float]:
        """Pass parts on along rings that together use all links.

        Into a chip go the parts of all others, into a tray those of other trays, into a rack those
        of other racks: the narrowest of these cuts sets the rate.
        """
        part = num_bytes / self.chips
        rack = self.rack_trays * self.members
        into_chip_s = (self.chips - 1) * part / (sum(self.fixed) + self.switched)
        far = (self.trays - 1) * part
        beyond = max(0, self.chips - rack) * part / rack
        links_s = max(into_chip_s, self._between_trays_s(far, beyond))
        fixed_hops = self.chips - 1 - self.trays  # a ring in one tray takes a switch once, too
        latency_s = self.trays * self.switched_s + fixed_hops * self.fixed_s
        return self._parts(latency_s, links_s, times=_TIMES[name])

    def _between_trays_s(self, far: float, beyond: float) -> float:
        """Return how long each chip takes `far` bytes of other trays, `beyond` of other racks."""
        return max(far / self.switched, beyond / self.off_rack)

    def _parts(self, latency_s: float, links_s: float, *, times: int) -> Mapping[str, float]:
        return {"launch": self.start_s, "latency": times * latency_s, "links": times * links_s}
