"""`asterope simulate gemm M N K`: one matrix product on one chip or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asterope import chips
from asterope.cli.operation import Wanted, described, draw
from asterope.cli.output import show, write_json
from asterope.errors import ConfigError

if TYPE_CHECKING:
    from asterope.api import MappedTime, MappingTime
    from asterope.runtime import Timeline

__all__ = ["simulate_gemm"]


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
    explained = None
    if wanted.is_explained:
        explained = [
            _named(api.product_mappings(chips.get(name), m, n, k, scheme)) for name in chip_names
        ]
    title = f"gemm {m:,} x {n:,} x {k:,}, {scheme.describe()}"
    first = chips.get(chip_names[0])

    def launches(max_events: int) -> Timeline:
        return api.product_launches(first, m, n, k, scheme, max_events=max_events)

    draw(first, launches, title, "product", wanted)
    rows, tables = described(title, found, "M x N x K", explained)
    if wanted.as_json:
        write_json(rows)
    else:
        show(tables)


def _named(found: Sequence[MappingTime]) -> list[tuple[str, MappedTime]]:
    return [(f"{each.block_m} x {each.block_n} x {each.block_k}", each) for each in found]
