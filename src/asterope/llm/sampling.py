"""Generate text: prefill, then one token a step; greedy or sampled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from asterope.errors import ConfigError
from asterope.llm.model import Model

__all__ = ["Sampling", "generate", "sample"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How the next token is chosen. Temperature 0 takes the most likely one.

    `top_k` keeps so many candidates (0: all), `top_p` the smallest set with that much probability.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(
                f"{self.temperature} is not a number from 0 up", where="temperature",
                hint="0 always takes the most likely token",
            )  # fmt: skip
        if self.top_k < 0:
            raise ConfigError(f"{self.top_k} is below 0", where="top_k", hint="0 keeps all")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"{self.top_p} is outside (0, 1]", where="top_p", hint="1 keeps all")
        if not 0 <= self.seed < 1 << 63:
            raise ConfigError(f"{self.seed} is outside 0..2^63 - 1", where="seed")


def sample(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> torch.Tensor:
    """Choose a token for each row.

    Shapes: logits [B, V]; result [B].
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    # Differences from the largest, so that no temperature is too small to divide by.
    scaled = (logits.double() - logits.double().amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k:
        best = scaled.topk(min(sampling.top_k, scaled.shape[-1]), dim=-1)
        scaled = torch.full_like(scaled, -math.inf).scatter(-1, best.indices, best.values)
    if sampling.top_p < 1:
        ordered, order = scaled.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        ordered = ordered.masked_fill(before >= sampling.top_p, -math.inf)
        scaled = torch.full_like(scaled, -math.inf).scatter(-1, order, ordered)
    return torch.multinomial(scaled.softmax(-1), 1, generator=generator)[:, 0]


@torch.inference_mode()
def generate(
    model: Model, prompt: list[int], *, max_new_tokens: int, sampling: Sampling | None = None
) -> Iterator[int]:
    """Yield new tokens until an end token, the limit, or the end of the context.

    Raises: ConfigError for an empty prompt, one longer than the context, or one with ids that the
    model has not.
    """
    limit = model.config.max_context
    if not 0 < len(prompt) < limit:
        raise ConfigError(
            f"a prompt of {len(prompt)} tokens is outside 1..{limit - 1}", where="prompt"
        )
    if max_new_tokens < 0:
        raise ConfigError(f"{max_new_tokens} is below 0", where="max_new_tokens")
    model.check_tokens(prompt, where="prompt")
    sampling = sampling or Sampling()
    generator = torch.Generator().manual_seed(sampling.seed)
    capacity = min(len(prompt) + max_new_tokens, limit)
    cache = model.new_cache(1, capacity)
    step = torch.tensor([prompt])
    for _ in range(min(max_new_tokens, capacity - len(prompt))):
        logits = model.forward(step, cache, last_only=True)
        token = int(sample(logits[:, 0], sampling, generator)[0])
        if token in model.config.eos_ids:
            return
        yield token
        step = torch.tensor([[token]])
