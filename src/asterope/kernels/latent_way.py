"""Choose how attention over latent vectors is computed: absorbed or expanded, whichever is faster.

On a simulated chip whose inside is described this goes by the closed forms that blocks are chosen
by, elsewhere by the operations of each way.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from asterope.chips import Chip
from asterope.kernels.attention_cycles import AttentionShape
from asterope.kernels.blocks import Choice
from asterope.kernels.key_blocks import considered_keys
from asterope.kernels.tiling import considered
from asterope.runtime import current_timeline

__all__ = ["LatentStep", "expands"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentStep:
    """Attention over latents: heads and their sizes, and a step's sequences.

    A head's query has `nope` elements that know no position and `rope` that do; keys and values
    are made of `latent` elements of a token. Each sequence has `tokens` new ones after `past`.
    """

    heads: int
    latent: int
    rope: int
    nope: int
    value: int
    batch: int
    tokens: int
    past: int
    bits: int = 16
    cache_bits: int = 16
    page: int = 0

    @property
    def keys(self) -> int:
        """Cached tokens of a sequence and new ones."""
        return self.past + self.tokens

    @property
    def absorbed(self) -> AttentionShape:
        """What the attention kernel does when queries are brought to the latents."""
        return AttentionShape(
            batch=self.batch, kv_heads=1, share=self.heads, dim=self.latent, rope=self.rope,
            is_latent=True, tokens=self.tokens, past=self.past, bits=self.bits,
            cache_bits=self.cache_bits, page=self.page,
        )  # fmt: skip

    @property
    def expanded(self) -> AttentionShape:
        """What the attention kernel does when each head has keys and values of its own."""
        return AttentionShape(
            batch=self.batch, kv_heads=self.heads, share=1, dim=self.nope, rope=self.rope,
            value=self.value, tokens=self.tokens, past=self.past, bits=self.bits,
            cache_bits=self.bits,
        )  # fmt: skip

    @property
    def _pairs(self) -> int:
        """Queries and keys that they see, of one head of a sequence."""
        return self.tokens * (2 * self.keys - self.tokens + 1) // 2

    @property
    def absorbed_flop(self) -> int:
        """Operations of attention, and of the products of heads before and after it."""
        around = self.tokens * self.latent * (self.nope + self.value)
        attended = self._pairs * (2 * self.latent + self.rope)
        return 2 * self.batch * self.heads * (attended + around)

    @property
    def expanded_flop(self) -> int:
        """Operations of attention, and of making keys and values."""
        made = self.keys * self.latent * (self.nope + self.value)
        attended = self._pairs * (self.nope + self.rope + self.value)
        return 2 * self.batch * self.heads * (attended + made)


def expands(step: LatentStep) -> bool:
    """Whether making keys and values of the latents takes less than absorbing; never with pages."""
    if step.page:
        return False
    timeline = current_timeline()
    if timeline is None or timeline.chip.tile is None:
        return step.expanded_flop < step.absorbed_flop
    absorbed, expanded = _cycles(timeline.chip, step)
    return expanded < absorbed


@functools.lru_cache(maxsize=1024)
def _cycles(chip: Chip, step: LatentStep) -> tuple[int, int]:
    """Return the cycles of both ways in closed form, of attention and the products around it."""
    rows, bits = step.batch * step.tokens * step.heads, step.bits
    around = [
        Choice(rows, n, k, bits, bits, experts=step.heads)
        for n, k in ((step.latent, step.nope), (step.value, step.latent))
    ]
    outputs = step.heads * (step.nope + step.value)
    making = Choice(step.batch * step.keys, outputs, step.latent, bits, bits)
    absorbed = considered_keys(chip, step.absorbed)[0].cycles
    expanded = considered_keys(chip, step.expanded)[0].cycles
    return (
        absorbed + sum(considered(chip, choice)[0].cycles for choice in around),
        expanded + considered(chip, making)[0].cycles,
    )
