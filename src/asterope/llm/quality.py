"""How much a model is worth, and how much a quantized one still is: perplexity, KL, agreement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from asterope.errors import ConfigError
from asterope.llm.model import Model
from asterope.llm.states import MAX_BATCH_TOKENS

__all__ = ["Batch", "Quality", "Reference", "evaluate"]


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

    def add(self, expected: torch.Tensor, found: torch.Tensor, targets: torch.Tensor) -> None:
        """Add tokens; log-probabilities [N, V] of the reference and the model, targets [N]."""
        self.nll += _nll(found, targets)
        self.kl += float((expected.exp() * (expected - found)).double().sum())
        self.agreed += int((expected.argmax(-1) == found.argmax(-1)).sum())


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Windows of a text that are run together, and the predictions in them that are scored.

    Shapes: windows [B, T]; scored [B, T - 1], true where the next token's prediction counts.
    """

    windows: torch.Tensor
    scored: torch.Tensor

    @property
    def targets(self) -> torch.Tensor:
        """The tokens that are predicted. Shapes: [N]."""
        return self.windows[:, 1:][self.scored]

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return those of what is scored. Shapes: logits [B, T, V] or [B x T, V]; result [N, V]."""
        logits = logits.view(*self.windows.shape, -1)[:, :-1]
        return logits.log_softmax(-1)[self.scored]


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
    for model in others.values():
        model.check_tokens(tokens, where="text")
    batches = batches_of(reference, tokens, context=context)
    sums = {name: _Sums() for name in ("", *others)}
    total, done = sum(len(batch.windows) for batch in batches), 0
    for batch in batches:
        expected = _run(reference, batch)
        sums[""].nll += _nll(expected, batch.targets)
        for name, model in others.items():
            sums[name].add(expected, _run(model, batch), batch.targets)
        done += len(batch.windows)
        if progress:
            progress(done, total)
    sums[""].agreed = scored = sum(len(batch.targets) for batch in batches)
    results = {name: _quality(s, scored) for name, s in sums.items()}
    return results.pop(""), results


class Reference:
    """A model's predictions on a text, kept to score many others against them.

    Cost: holds the log-probabilities, 4 bytes x tokens x vocabulary.

    Raises: as `evaluate`.
    """

    def __init__(self, model: Model, tokens: Sequence[int], *, context: int = 512) -> None:
        self.batches = batches_of(model, tokens, context=context)
        with torch.inference_mode():
            self._expected = [_run(model, batch) for batch in self.batches]
        pairs = zip(self._expected, self.batches, strict=True)
        nll = sum(_nll(expected, batch.targets) for expected, batch in pairs)
        self._scored = sum(len(batch.targets) for batch in self.batches)
        self.quality = _quality(_Sums(nll=nll, agreed=self._scored), self._scored)

    def score(self, found: Iterable[torch.Tensor]) -> Quality:
        """Score what a model predicts in each batch. Shapes: each [N, V], log-probabilities."""
        sums = _Sums()
        for batch, expected, log_probabilities in zip(
            self.batches, self._expected, found, strict=True
        ):
            sums.add(expected, log_probabilities, batch.targets)
        return _quality(sums, self._scored)

    @torch.inference_mode()
    def score_model(self, model: Model) -> Quality:
        """Score a model of the same vocabulary."""
        return self.score(_run(model, batch) for batch in self.batches)


def batches_of(model: Model, tokens: Sequence[int], *, context: int) -> list[Batch]:
    """Cut a text into windows as `evaluate` says.

    Raises: as `evaluate`.
    """
    if context < 2:
        raise ConfigError(f"{context} is below 2", where="context")
    model.check_tokens(tokens, where="text")
    context = min(context, model.config.max_context, len(tokens))
    if context < 2:
        raise ConfigError(f"{len(tokens)} tokens are too few to score", where="text")
    windows = _windows(len(tokens), context)
    text = torch.tensor(list(tokens))
    per_batch = max(1, MAX_BATCH_TOKENS // context)
    batches = []
    for first in range(0, len(windows), per_batch):
        part = windows[first : first + per_batch]
        scored = torch.zeros((len(part), context - 1), dtype=torch.bool)
        for row, (_, skip) in enumerate(part):
            scored[row, skip:] = True
        batches.append(Batch(torch.stack([text[i : i + context] for i, _ in part]), scored))
    return batches


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


def _run(model: Model, batch: Batch) -> torch.Tensor:
    cache = model.new_cache(*batch.windows.shape)
    return batch.log_probabilities(model.forward(batch.windows, cache))


def _nll(log_probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the negative log-likelihood of tokens. Shapes: [N, V]; targets [N]."""
    return -float(log_probabilities.gather(-1, targets[:, None]).double().sum())


def _quality(sums: _Sums, scored: int) -> Quality:
    return Quality(
        perplexity=math.exp(min(sums.nll / scored, 700.0)),
        num_tokens=scored,
        kl=sums.kl / scored,
        top1_agreement=sums.agreed / scored,
    )
