"""Attention over latent vectors (MLA) as `simulate attention --latent` has it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asterope import operators
from asterope.api.heads import Sequences
from asterope.chips import Chip
from asterope.kernels import AttentionShape, LatentStep, expands, latent_attention
from asterope.operators import OperatorTime, check_sizes
from asterope.runtime import simulate

__all__ = ["LatentHeadShape"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentHeadShape(Sequences):
    """Attention of one layer over latents in bf16, with the products of heads around it.

    `heads` have queries and keys of `nope` elements and `rope` turned ones, and values of `value`
    elements, made of `latent` elements of a token. It is timed the way that takes less, absorbed or
    expanded; in pages always absorbed.

    Raises: as `Sequences`.
    """

    heads: int
    latent: int
    rope: int
    nope: int
    value: int

    def __post_init__(self) -> None:
        Sequences.__post_init__(self)
        check_sizes(
            heads=self.heads, latent=self.latent, rope=self.rope, nope=self.nope, value=self.value
        )

    @property
    def step(self) -> LatentStep:
        """The step as the kernels have it."""
        return LatentStep(
            heads=self.heads, latent=self.latent, rope=self.rope, nope=self.nope,
            value=self.value, batch=self.batch, tokens=self.tokens,
            past=self.past, page=self.page,
        )  # fmt: skip

    def is_expanded(self, chip: Chip) -> bool:
        """Whether keys and values are made of the latents on this chip."""
        with simulate(chip, values=False, fidelity="roofline"):
            return expands(self.step)

    def flop(self, chip: Chip) -> int:
        """Return the floating-point operations of the way that is taken on a chip."""
        return self.step.expanded_flop if self.is_expanded(chip) else self.step.absorbed_flop

    def mapped(self, chip: Chip) -> AttentionShape:
        """Return what the attention kernel chooses blocks for on a chip."""
        return self.step.expanded if self.is_expanded(chip) else self.step.absorbed

    def launch(self) -> None:
        """Launch the kernels on tensors without values."""
        rows, width = self.batch * self.tokens, self.latent + self.rope
        q = torch.empty(
            (rows, self.heads, self.nope + self.rope), dtype=torch.bfloat16, device="meta"
        )
        weight = q.new_empty((self.heads * (self.nope + self.value), self.latent))
        asked = {"nope": self.nope, "scale": (self.nope + self.rope) ** -0.5}
        if not self.page:
            cache = q.new_empty((self.batch, self.context, width))
            latent_attention(q, cache, weight, past=self.past, **asked)
            return
        pages = self.pages()
        cache = q.new_empty((pages.tables.numel(), self.page, width))
        latent_attention(q, cache, weight, pages=pages, **asked)

    def operator(self, chip: Chip) -> OperatorTime:
        """Time the same on a calibrated chip, whose operators know no pages.

        Raises: as `operators.latent_attention`.
        """
        heads = operators.LatentHeads(
            query=self.heads, latent=self.latent, rope=self.rope, nope=self.nope,
            value=self.value, absorbed=not self.is_expanded(chip),
        )  # fmt: skip
        return operators.latent_attention(
            chip, heads, batch=self.batch, tokens=self.tokens, past=self.past
        )
