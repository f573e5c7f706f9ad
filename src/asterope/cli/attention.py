"""`asterope simulate attention HEADS KV_HEADS SIZE`: attention of one layer, on some chips.

With `--latent` the sizes are HEADS LATENT ROPE NOPE VALUE, those of attention over latents (MLA).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.console import RenderableType

from asterope import chips
from asterope.cli.operation import Wanted, described, draw
from asterope.cli.output import show, write_json
from asterope.errors import ConfigError

if TYPE_CHECKING:
    from asterope.api import AttentionMapping, HeadShape, LatentHeadShape, MappedTime
    from asterope.runtime import Timeline

__all__ = ["Steps", "simulate_attention"]

_CONTEXT = 4096
_SIZES = {"heads": "query heads", "kv_heads": "key heads", "size": "size of a head"}
_LATENT_SIZES = {
    "heads": "query heads", "latent": "size of a latent", "rope": "of what is turned",
    "nope": "of what is not", "value": "of a value",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """The steps that attention is timed in, and the cache: page size, format, whether it is latent.

    A page size of 0 is a cache in one piece.
    """

    phase: str
    batch: int
    prefill_batch: int
    context: int | None
    page: int
    is_latent: bool
    cache: str

    def of_each_phase(self) -> Iterator[tuple[Literal["decode", "prefill"], int]]:
        """Return the phases that are asked for, each with its sequences.

        Raises: ConfigError if there is no such phase.
        """
        if self.phase not in {"decode", "prefill", "both"}:
            raise ConfigError(
                f"there is no phase {self.phase!r}", where="phase",
                hint="use decode, prefill or both",
            )  # fmt: skip
        if self.phase in {"decode", "both"}:
            yield "decode", self.batch
        if self.phase in {"prefill", "both"}:
            yield "prefill", self.prefill_batch


def simulate_attention(
    sizes: Sequence[int], fmt: str | None, steps: Steps, chip_names: Sequence[str], wanted: Wanted
) -> None:
    """Time attention in one phase or both and show it; trace and page are of the first.

    Raises: ConfigError if sizes are too few or too many, for another format than bf16, and if
    there is nothing to trace or draw.
    """
    if fmt not in {None, "bf16"}:
        raise ConfigError("attention is computed in bf16", where="--format")
    from asterope import api

    shapes = _shapes(sizes, steps)
    rows: list[dict[str, Any]] = []
    tables: list[RenderableType] = []
    for shape in shapes:
        found = [api.time_attention(chips.get(name), shape) for name in chip_names]
        explained = None
        if wanted.is_explained:
            explained = [
                _named(api.attention_mappings(chips.get(name), shape)) for name in chip_names
            ]
        more, shown = described(_title(shape), found, "rows x keys", explained)
        rows += more
        tables += shown
    first, chip = shapes[0], chips.get(chip_names[0])

    def launches(max_events: int) -> Timeline:
        return api.attention_launches(chip, first, max_events=max_events)

    draw(chip, launches, _title(first), first.phase, wanted)
    if wanted.as_json:
        write_json(rows)
    else:
        show(tables)


def _shapes(sizes: Sequence[int], steps: Steps) -> list[HeadShape | LatentHeadShape]:
    from asterope.api import HeadShape, LatentHeadShape

    kind = LatentHeadShape if steps.is_latent else HeadShape
    names = _LATENT_SIZES if steps.is_latent else _SIZES
    if len(sizes) != len(names):
        numbers = "128 512 64 128 128 --latent" if steps.is_latent else "32 8 128"
        raise ConfigError(
            f"{len(sizes)} sizes given, attention has {len(names)}", where="SIZES",
            hint=f"{', '.join(names.values())}: asterope simulate attention {numbers}",
        )  # fmt: skip
    context = _CONTEXT if steps.context is None else steps.context
    given: dict[str, Any] = dict(zip(names, sizes, strict=True))
    if not steps.is_latent:
        given["cache"] = steps.cache
    elif steps.cache != "auto":
        raise ConfigError("latents are cached in the type of activations only", where="--kv")
    return [
        kind(**given, batch=batch, context=context, phase=phase, page=steps.page)
        for phase, batch in steps.of_each_phase()
    ]


def _title(shape: HeadShape | LatentHeadShape) -> str:
    from asterope.api import HeadShape

    sequences = f"{shape.batch} sequence{'s' * (shape.batch > 1)} of {shape.context:,}"
    cache = ""
    if isinstance(shape, HeadShape):
        heads = f"{shape.heads} heads on {shape.kv_heads} of {shape.size}"
        cache = "" if shape.cache == "auto" else f", {shape.cache} cache"
    else:
        heads = f"{shape.heads} heads over latents of {shape.latent} + {shape.rope}"
    pages = f" in pages of {shape.page}" if shape.page else ""
    return f"attention, {shape.phase}, {heads}, {sequences}{pages}{cache}"


def _named(found: Sequence[AttentionMapping]) -> list[tuple[str, MappedTime]]:
    return [(f"{each.block_rows} x {each.block_keys}", each) for each in found]
