"""Relations between figures: what must agree, and what follows when a what-if changes a cause.

All of them work on a flat description, dotted path to value, so that one formula serves the check
of a finished chip and the completion of a what-if.
"""

from __future__ import annotations

from collections.abc import Mapping

from asterope.chips.figure import Value, show
from asterope.errors import ChipError

__all__ = ["check_relations", "follow"]

_TOLERANCE = 0.005

_DEPTH = "tile.tensor.depth_per_cycle."
_PEAK = "peak_flop_per_s."
_MAC_ENERGY = "power.energy_pj.mac."
_SRAM_TOTAL = "sram_total_bytes"
_LINK_TOTAL = "network.per_direction_bytes_per_s"
_BANDWIDTH = "hbm.bandwidth_bytes_per_s"
_IN_FLIGHT = "hbm.access.reads_in_flight_bytes"
_OFF_RACK = "network.off_rack_bytes_per_s"
_SWITCHED = "network.switched_bytes_per_s"
_LINKS = (
    "network.fixed_ns_bytes_per_s",
    "network.fixed_ew_bytes_per_s",
    "network.fixed_diagonal_bytes_per_s",
    _SWITCHED,
)


def _number(values: Mapping[str, Value], path: str) -> float:
    value = values.get(path, 0)
    return 0 if isinstance(value, str) else value


def _num_tiles(values: Mapping[str, Value]) -> float:
    return _number(values, "clusters") * _number(values, "tiles_per_cluster")


def _formats(values: Mapping[str, Value], group: str) -> list[str]:
    return [path.removeprefix(group) for path in values if path.startswith(group)]


def expected_peaks(values: Mapping[str, Value]) -> dict[str, float]:
    """Multiply out each format's peak: 2 x rows x cols x depth x tiles x clock."""
    block = _number(values, "tile.tensor.rows") * _number(values, "tile.tensor.cols")
    rate = 2 * block * _num_tiles(values) * _number(values, "clock_hz")
    return {
        _PEAK + element: rate * _number(values, _DEPTH + element)
        for element in _formats(values, _DEPTH)
    }


def sram_of_parts(values: Mapping[str, Value]) -> int:
    """Add up the TSRAM of all tiles and the CSRAM of all clusters."""
    tsram = _num_tiles(values) * _number(values, "tile.tsram.capacity_bytes")
    csram = _number(values, "clusters") * _number(values, "cluster.csram_bytes")
    return int(tsram + csram)


def links_of_parts(values: Mapping[str, Value]) -> float:
    """Add up the fixed and switched links of a chip, 0 where not all of them are described."""
    if any(link not in values for link in _LINKS):
        return 0
    return sum(_number(values, link) for link in _LINKS)


def check_relations(values: Mapping[str, Value]) -> None:
    """Refuse a description that contradicts itself.

    Raises: ChipError whose `where` is the figure that states the whole.
    """
    _check_formats(values)
    _check_peaks(values)
    _check_sram(values)
    _check_links(values)
    leakage, tdp = _number(values, "power.leakage_w"), _number(values, "power.tdp_w")
    if "power.tdp_w" in values and leakage >= tdp:
        raise ChipError(f"{leakage:g} W is not below tdp_w, {tdp:g} W", where="power.leakage_w")


def _check_formats(values: Mapping[str, Value]) -> None:
    """A described tensor unit has a depth, a peak and an energy for the same formats."""
    groups = (_DEPTH, _PEAK, _MAC_ENERGY)
    depths = _formats(values, _DEPTH)
    if "tile.tensor.rows" in values and not depths:
        raise ChipError("is empty: give the depth of one format", where=_DEPTH.rstrip("."))
    for group in groups if depths else ():
        for other in groups:
            for element in _formats(values, other):
                if group + element not in values:
                    what = f"is missing, and {other}{element} is given"
                    raise ChipError(what, where=group + element)


def _check_peaks(values: Mapping[str, Value]) -> None:
    for path, expected in expected_peaks(values).items():
        peak = _number(values, path)
        if abs(peak - expected) <= _TOLERANCE * expected:
            continue
        depth = values[_DEPTH + path.removeprefix(_PEAK)]
        raise ChipError(
            f"{show(peak)} flop/s contradicts 2 x {values['tile.tensor.rows']} x "
            f"{values['tile.tensor.cols']} x {depth} x {_num_tiles(values)} tiles x "
            f"{_number(values, 'clock_hz'):g} Hz = {expected:.6g} flop/s",
            where=path,
            hint=f"set it to {expected:.6g}; over a base, leave it out and it follows",
        )


def _check_sram(values: Mapping[str, Value]) -> None:
    parts = sram_of_parts(values)
    if _SRAM_TOTAL not in values or parts <= _number(values, _SRAM_TOTAL):
        return
    raise ChipError(
        f"{values[_SRAM_TOTAL]} B is less than TSRAM and CSRAM together, {parts} B",
        where=_SRAM_TOTAL,
        hint=f"set it to {parts} or more; over a base, leave it out and it follows",
    )


def _check_links(values: Mapping[str, Value]) -> None:
    links, total = links_of_parts(values), _number(values, _LINK_TOTAL)
    if not links or abs(links - total) <= _TOLERANCE * total:
        return
    raise ChipError(
        f"{total:.6g} B/s contradicts its fixed and switched links, {links:.6g} B/s",
        where=_LINK_TOTAL,
        hint=f"set it to {links:.6g}; over a base, leave it out and it follows",
    )


def follow(
    before: Mapping[str, Value], after: Mapping[str, Value], stated: set[str]
) -> dict[str, Value]:
    """List the figures that must change because others did, leaving those the user stated.

    Peaks follow tiles, clock and depth. The SRAM total grows by as much as its parts. The network
    total follows its links, and links that nobody stated scale with the total; the
    rack's uplinks scale with the switched links. The reads under way scale with the bandwidth of
    the memory: more channels have more of them.
    """
    changed: dict[str, Value] = {}
    old_peaks = expected_peaks(before)
    for path, peak in expected_peaks(after).items():
        if old_peaks.get(path) != peak:
            changed[path] = peak
    growth = sram_of_parts(after) - sram_of_parts(before)
    if growth and _SRAM_TOTAL in before:
        changed[_SRAM_TOTAL] = int(_number(before, _SRAM_TOTAL)) + growth
    changed.update(_follow_links(before, after, stated))
    wider = _number(after, _BANDWIDTH) / _number(before, _BANDWIDTH)
    if wider != 1 and _IN_FLIGHT in after:
        changed[_IN_FLIGHT] = max(1, round(_number(after, _IN_FLIGHT) * wider))
    return {path: value for path, value in changed.items() if path not in stated}


def _follow_links(
    before: Mapping[str, Value], after: Mapping[str, Value], stated: set[str]
) -> dict[str, Value]:
    old, new = links_of_parts(before), links_of_parts(after)
    if not new:
        return {}
    changed: dict[str, Value] = {}
    if new != old:
        changed[_LINK_TOTAL] = new
    elif stated.isdisjoint(_LINKS):
        scale = _number(after, _LINK_TOTAL) / _number(before, _LINK_TOTAL)
        changed.update({link: _number(before, link) * scale for link in _LINKS if scale != 1})
    if _OFF_RACK in before and old:
        growth = _number({**after, **changed}, _SWITCHED) / _number(before, _SWITCHED)
        changed.update({_OFF_RACK: _number(before, _OFF_RACK) * growth} if growth != 1 else {})
    return changed
