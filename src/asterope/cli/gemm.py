"""`asterope simulate gemm M N K`: one matrix product on one chip or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asterope import chips
from asterope.cli.operation import Wanted, described, draw
from asterope.cli.output import show, write_json
from asterope.errors import ConfigError
from asterope.units import si

if TYPE_CHECKING:
    from asterope.api import MappedTime, PlacedTime
    from asterope.runtime import Timeline

__all__ = ["simulate_gemm"]

_STATIONARY = {"y": "sums stay", "x": "a panel of x stays", "w": "a panel of w stays"}
_PARTS = {
    "tensor": "products", "tile port": "tiles' ports", "csram": "reads of CSRAM",
    "issue": "issued instructions", "latency": "waits for loads", "hbm": "reads of HBM",
    "noc": "clusters' ports", "ends": "first loads and last stores",
}  # fmt: skip


def simulate_gemm(
    sizes: Sequence[int], fmt: str | None, activations: str, rule: str | None,
    chip_names: Sequence[str], wanted: Wanted,
) -> None:  # fmt: skip
    """Time a product and show it; write a trace and a page of it on the first chip.

    Raises: ConfigError if there are not three sizes, or if there is nothing to trace or draw.
    """
    if len(sizes) != 3:
        raise ConfigError(
            f"{len(sizes)} sizes given, a product has three", where="SIZES",
            hint="M rows, N outputs, K inputs: asterope simulate gemm 8192 8192 8192",
        )  # fmt: skip
    from asterope import api

    scheme = api.read_scheme(fmt, activations=activations, rule=rule)
    m, n, k = sizes
    found = [api.time_product(chips.get(name), m, n, k, scheme) for name in chip_names]
    mappings: list[list[PlacedTime]] = []
    if wanted.is_explained:
        mappings = [api.product_mappings(chips.get(name), m, n, k, scheme) for name in chip_names]
    explained = [_named(each) for each in mappings] if wanted.is_explained else None
    title = f"gemm {m:,} x {n:,} x {k:,}, {scheme.describe()}"
    first = chips.get(chip_names[0])

    def launches(max_events: int) -> Timeline:
        return api.product_launches(first, m, n, k, scheme, max_events=max_events)

    draw(first, launches, title, "product", wanted)
    rows, tables = described(title, found, "M x N x K", explained)
    if wanted.as_json:
        write_json(rows)
    else:
        show([*tables, *(words for each in mappings for words in _placement(each))])


def _named(found: Sequence[PlacedTime]) -> list[tuple[str, MappedTime]]:
    return [
        (f"{each.block_m} x {each.block_n} x {each.block_k}{_short(each)}", each) for each in found
    ]


def _short(each: PlacedTime) -> str:
    stays = "" if each.stationary == "y" else f", {each.stationary} stays"
    return stays if each.pinned is None else f"{stays}, {each.pinned} pinned"


def _placement(found: Sequence[PlacedTime]) -> list[str]:
    """Say what the chosen mapping keeps where, and why the next best placement lost."""
    if not found:
        return []
    chosen = next(each for each in found if each.is_chosen)
    words = [f"Chosen: {_where(chosen)}."]
    others = [e for e in found if (e.stationary, e.pinned) != (chosen.stationary, chosen.pinned)]
    if others:
        other = others[0]
        part = max(_larger(other), "ends", key=lambda p: other.limits_s[p] - chosen.limits_s[p])
        words.append(
            f"Runner-up: {_where(other)}; {other.time_s / chosen.time_s - 1:+.1%} of the time. In"
            f" closed form its {_PARTS[part]} take {si(other.limits_s[part], 's')}, the chosen's"
            f" {si(chosen.limits_s[part], 's')}."
        )
    return words


def _where(each: PlacedTime) -> str:
    passing = [o for o in "xw" if o in each.kept and o != each.pinned]
    csram = f"{each.pinned} is pinned in CSRAM" if each.pinned else "nothing is pinned in CSRAM"
    if passing:
        csram += f", where {' and '.join(passing)} stay{'s' * (len(passing) == 1)} without it"
    return f"{_STATIONARY[each.stationary]} in TSRAM, {csram}"


def _larger(each: PlacedTime) -> str:
    return max((p for p in each.limits_s if p != "ends"), key=lambda p: each.limits_s[p])
