"""`asterope simulate moe TOKENS HIDDEN INTERMEDIATE EXPERTS TOP_K`: a layer of experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asterope import chips
from asterope.cli.operation import Wanted, described, draw
from asterope.cli.options import one_of
from asterope.cli.output import show, write_json
from asterope.errors import ConfigError

if TYPE_CHECKING:
    from asterope.api import ExpertMapping, MappedTime
    from asterope.runtime import Timeline

__all__ = ["simulate_moe"]

_SIZES = ("tokens", "hidden", "intermediate", "experts", "top_k")


def simulate_moe(
    sizes: Sequence[int], fmt: str | None, activations: str, rule: str | None, loads: str,
    chip_names: Sequence[str], wanted: Wanted,
) -> None:  # fmt: skip
    """Time a layer of experts and show it; write a trace and a page of it on the first chip.

    Raises: ConfigError if there are not five sizes, for a spread that there is not, and if there is
    nothing to trace or draw.
    """
    if len(sizes) != len(_SIZES):
        raise ConfigError(
            f"{len(sizes)} sizes given, a layer of experts has {len(_SIZES)}", where="SIZES",
            hint="tokens, hidden size, an expert's size, experts, experts of a token: "
            "asterope simulate moe 64 2048 768 128 8",
        )  # fmt: skip
    from asterope import api
    from asterope.llm import EXPERT_LOADS

    scheme = api.read_scheme(fmt, activations=activations, rule=rule)
    spread = one_of(loads, EXPERT_LOADS, "--expert-loads")
    shape = api.ExpertsShape(**dict(zip(_SIZES, sizes, strict=True)), loads=spread)
    found = [api.time_experts(chips.get(name), shape, scheme) for name in chip_names]
    explained = None
    if wanted.is_explained:
        explained = [
            _named(api.experts_mappings(chips.get(name), shape, scheme)) for name in chip_names
        ]
    title = (
        f"moe, {shape.tokens:,} tokens of {shape.hidden:,}, {shape.top_k} of {shape.experts} "
        f"experts of {shape.intermediate:,} ({found[0].used} have tokens), {scheme.describe()}"
    )
    first = chips.get(chip_names[0])

    def launches(max_events: int) -> Timeline:
        return api.experts_launches(first, shape, scheme, max_events=max_events)

    draw(first, launches, title, "experts", wanted)
    rows, tables = described(title, found, "M x N x K", explained)
    if wanted.as_json:
        write_json(rows)
    else:
        show(tables)


def _named(found: Sequence[ExpertMapping]) -> list[tuple[str, MappedTime]]:
    return [
        (f"{each.product} {each.block_m} x {each.block_n} x {each.block_k}", each) for each in found
    ]
