"""Collectives: in a node whose chips all reach each other at full rate, or on a fabric of trays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from asterope.chips import Chip
from asterope.errors import ConfigError
from asterope.operators.fabric import is_fabric, on_fabric
from asterope.operators.timing import OperatorTime, achieved, timed

__all__ = ["COLLECTIVES", "collective"]

COLLECTIVES: Mapping[str, Callable[[int], float]] = MappingProxyType({
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
})  # fmt: skip
"""What each chip sends, as a share of the bytes, for a number of chips."""

_FLAGGED_PAYLOAD = 0.5
"""What is left of a link for data when every 4 bytes carry a flag of 4 bytes, without a barrier."""


def collective(
    chip: Chip, name: str, num_bytes: float, chips: int, *, fused: bool = False
) -> OperatorTime:
    """Time a collective of `num_bytes` in all among `chips` chips of one node, or of a fabric.

    Bytes are those of the whole vector: what an all-gather gives each chip, what a reduce-scatter
    and an all-to-all take from each. With `fused` an all-reduce in a node may also be one kernel of
    a recorded graph, in which each chip reads the others' whole data: the fastest for short ones.

    Raises: ConfigError if there is no such collective, or fewer than two chips, or more than can
    be joined; ChipError for a chip without calibrated operators or a described fabric.
    """
    if name not in COLLECTIVES:
        raise ConfigError(
            f"{name!r} is not a collective", where="name", hint=f"one of {', '.join(COLLECTIVES)}"
        )
    if chips < 2:
        raise ConfigError(
            f"{chips} chips have nothing to exchange", where="chips", hint="2 or more"
        )
    if is_fabric(chip):
        return on_fabric(chip, name, num_bytes, chips)
    reach = achieved(chip)
    start_s = reach.collective_s + (chips - 2) * reach.hop_s
    sent = COLLECTIVES[name](chips) * num_bytes
    fraction = reach.link_fraction if chips > 2 else reach.pair_fraction
    links_s = sent / (chip.network.per_direction_bytes_per_s * fraction)
    meet_s = chips * reach.rendezvous_s
    protocols = {
        "flags in the data": {"launch": start_s, "links": links_s / _FLAGGED_PAYLOAD},
        "full rate": {"launch": start_s, "rendezvous": meet_s, "links": links_s},
    }
    if fused and name == "all_reduce":
        read_bytes = (chips - 1) * num_bytes
        read_s = read_bytes / (chip.network.per_direction_bytes_per_s * reach.link_fraction)
        protocols["one kernel"] = {"launch": reach.fused_s, "links": read_s}
    chosen = min(protocols, key=lambda protocol: sum(protocols[protocol].values()))
    return timed(protocols[chosen], mapping=f"{chips} chips of one node, {chosen}")
