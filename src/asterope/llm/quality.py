"""How much a model is worth, and how much a quantized one still is: perplexity, KL, agreement."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from asterope.errors import ConfigError
from asterope.llm.model import Model

__all__ = ["Quality", "evaluate"]

_MAX_BATCH_TOKENS = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """One model on one text.

    `perplexity` is exp of the mean negative log-likelihood of a token. Against the reference:
    `kl` is the mean Kullback-Leibler divergence KL(reference || model) in nats a token,
    `top1_agreement` the share of tokens whose most likely successor is the same.
    """

    perplexity: float
    num_tokens: int
    kl: float
    top1_agreement: float


@dataclass(slots=True)
class _Sums:
    nll: float = 0.0
    kl: float = 0.0
    agreed: int = 0


@torch.inference_mode()
def evaluate(
    reference: Model,
    others: Mapping[str, Model],
    tokens: Sequence[int],
    *,
    context: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Quality, dict[str, Quality]]:
    """Score models on a text, all on the same windows.

    The text is cut into windows of `context` tokens that overlap by half; each token is scored
    once, in the window where it has at least half a window before it (the first window scores all
    its tokens but the first).

    Raises: ConfigError if there are fewer than two tokens, or ids that a model has not.
    """
    if context < 2:
        raise ConfigError(f"{context} is below 2", where="context")
    for model in (reference, *others.values()):
        model.check_tokens(tokens, where="text")
    context = min(context, reference.config.max_context, len(tokens))
    if context < 2:
        raise ConfigError(f"{len(tokens)} tokens are too few to score", where="text")
    windows = _windows(len(tokens), context)
    text = torch.tensor(list(tokens))
    sums = {name: _Sums() for name in ("", *others)}
    scored = 0
    per_batch = max(1, _MAX_BATCH_TOKENS // context)
    for first in range(0, len(windows), per_batch):
        batch = windows[first : first + per_batch]
        inputs = torch.stack([text[start : start + context] for start, _ in batch])
        expected = _log_probabilities(reference, inputs)
        keep = torch.zeros(inputs.shape, dtype=torch.bool)[:, 1:]
        for row, (_, skip) in enumerate(batch):
            keep[row, skip:] = True
        targets = inputs[:, 1:][keep]
        expected = expected[keep]
        scored += len(targets)
        sums[""].nll -= float(expected.gather(-1, targets[:, None]).double().sum())
        for name, model in others.items():
            found = _log_probabilities(model, inputs)[keep]
            sums[name].nll -= float(found.gather(-1, targets[:, None]).double().sum())
            sums[name].kl += float((expected.exp() * (expected - found)).double().sum())
            sums[name].agreed += int((expected.argmax(-1) == found.argmax(-1)).sum())
        if progress:
            progress(min(first + per_batch, len(windows)), len(windows))
    sums[""].agreed = scored
    results = {name: _quality(s, scored) for name, s in sums.items()}
    return results.pop(""), results


def _windows(length: int, context: int) -> list[tuple[int, int]]:
    """Return each window's start and how many of its predictions an earlier window made."""
    stride = max(1, context // 2)
    windows, done, start = [], 1, 0
    while done < length:
        start = min(start, length - context)
        windows.append((start, done - start - 1))
        done = start + context
        start += stride
    return windows


def _log_probabilities(model: Model, inputs: torch.Tensor) -> torch.Tensor:
    cache = model.new_cache(inputs.shape[0], inputs.shape[1])
    logits = model.forward(inputs, cache)[:, :-1]
    return logits.log_softmax(-1)


def _quality(sums: _Sums, scored: int) -> Quality:
    return Quality(
        perplexity=math.exp(min(sums.nll / scored, 700.0)),
        num_tokens=scored,
        kl=sums.kl / scored,
        top1_agreement=sums.agreed / scored,
    )
