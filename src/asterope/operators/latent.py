"""Attention over latent vectors on one chip: attention, and the products of heads around it."""

from __future__ import annotations

from asterope.chips import Chip
from asterope.operators.attention import LatentHeads, attention_decode, attention_prefill
from asterope.operators.products import gemm
from asterope.operators.timing import OperatorTime, timed

__all__ = ["latent_attention"]


def latent_attention(
    chip: Chip, heads: LatentHeads, *, batch: int, tokens: int, past: int = 0, rate: str = "bf16"
) -> OperatorTime:  # fmt: skip
    """Time attention of `tokens` new ones of each sequence after `past`, absorbed or expanded.

    Absorbed, queries are brought to the latents and results out of them; expanded, keys and values
    of all tokens are made first.

    Raises: ConfigError for sizes below one; ChipError if the chip has no calibrated operators.
    """
    rows, keys = batch * tokens, past + tokens
    if heads.absorbed:
        shapes = [
            (rows, heads.query * heads.latent, heads.nope),
            (rows, heads.query * heads.value, heads.latent),
        ]
    else:
        shapes = [(batch * keys, heads.query * (heads.nope + heads.value), heads.latent)]
    if tokens == 1:
        attended = attention_decode(chip, heads, batch=batch, keys=keys, rate=rate)
    else:
        attended = attention_prefill(
            chip, heads, batch=batch, queries=tokens, context=past, rate=rate
        )
    found = [attended, *(gemm(chip, *shape, rate=rate, bits=(16, 16)) for shape in shapes)]
    parts: dict[str, float] = {}
    for each in found:
        for name, seconds in each.parts.items():
            parts[name] = parts.get(name, 0.0) + seconds
    return timed(
        parts, flop=sum(each.flop for each in found),
        hbm_bytes=sum(each.hbm_bytes for each in found),
        mapping=f"{attended.mapping}, {len(shapes)} product{'s' * (len(shapes) > 1)} of heads",
    )  # fmt: skip
