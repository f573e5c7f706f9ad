"""The rotary embedding: the angle of each pair of dimensions, stretched for long contexts."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["ROPES", "Rope"]

ROPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rope:
    """Rotary embedding: base, and the scaling of long-context variants.

    Of YaRN, waves that turn `beta_fast` times or more within the original context are kept, those
    that turn less than `beta_slow` times stretched by the factor; with `truncate` between whole
    pairs.
    """

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    attention_factor: float = 0.0
    truncate: bool = True

    def inverse_frequencies(self, head_dim: int) -> list[float]:
        """Return the angle per position of each pair of dimensions, head_dim / 2 of them."""
        plain = [self.theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
        if self.kind == "linear":
            return [f / self.factor for f in plain]
        if self.kind == "llama3":
            return [self._llama3(f) for f in plain]
        if self.kind == "yarn":
            return self._yarn(plain, head_dim)
        return plain

    def _llama3(self, frequency: float) -> float:
        """Stretch long waves by the factor, keep short ones, and blend in between.

        Source: Llama 3.1's published inference code, as in transformers' `rope_utils`.
        """
        wavelength = 2 * math.pi / frequency
        if wavelength < self.original_context / self.high_freq_factor:
            return frequency
        if wavelength > self.original_context / self.low_freq_factor:
            return frequency / self.factor
        span = self.high_freq_factor - self.low_freq_factor
        smooth = (self.original_context / wavelength - self.low_freq_factor) / span
        return (1 - smooth) * frequency / self.factor + smooth * frequency

    def _yarn(self, plain: list[float], head_dim: int) -> list[float]:
        """Blend kept and stretched waves along the pairs, from the first to the last limit.

        Source: YaRN (arXiv 2309.00071), section 3.2; whole pairs, as in DeepSeek's code.
        """
        turns = self.original_context / (2 * math.pi)
        first, last = (
            head_dim * math.log(turns / beta) / (2 * math.log(self.theta))
            for beta in (self.beta_fast, self.beta_slow)
        )
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        low, high = max(first, 0), min(last, head_dim - 1)
        span = (high - low) or 0.001
        stretched = [min(max((i - low) / span, 0.0), 1.0) for i in range(len(plain))]
        return [
            f / self.factor * share + f * (1 - share)
            for f, share in zip(plain, stretched, strict=True)
        ]

    @property
    def table_factor(self) -> float:
        """What cosines and sines are multiplied by."""
        if self.kind != "yarn":
            return 1.0
        if self.attention_factor:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._growth(self.mscale) / self._growth(self.mscale_all_dim)
        return self._growth(1.0)

    @property
    def score_factor(self) -> float:
        """What scores over latents are multiplied by besides, as DeepSeek has it."""
        if self.kind != "yarn" or not self.mscale_all_dim:
            return 1.0
        return self._growth(self.mscale_all_dim) ** 2

    def _growth(self, share: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * share * math.log(self.factor) + 1.0
