"""Train a model to say what another says: distillation, with a schedule that needs no tuning.

Models are torch modules that give logits for tokens, those of transformers included.
Shapes: S windows of T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from asterope.errors import ConfigError
from asterope.llm.training_state import TrainingState
from asterope.quant import FakeQuantizedLinear

__all__ = ["Trained", "TrainingPlan", "distill", "distillation_loss"]

_MAX_BATCH_TOKENS = 2048
_BETAS = (0.9, 0.95)
_MAX_NORM = 1.0
_LAST_RATE = 0.02
_RATE, _NOISY_RATE, _NOISY_BITS = 0.004, 0.002, 6


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """How long to train, and how.

    `cross_entropy` is the share of the loss that the text itself has; the rest is the divergence
    from the original. `relative_rate` is AdamW's peak learning rate for each tensor as a share of
    its root mean square, so that it suits models of any width: left out, 0.004, or 0.002 where
    inputs have fewer than six bits, whose errors make gradients noisier. It warms up over `warm_up`
    of the steps, and falls by a cosine to a fiftieth. What is not rounded to a format, norms,
    biases and branches, has `unrounded_share` of it: a weight changes nothing until it is half a
    step away, and these at once.

    Raises: ConfigError naming the field that is outside its limits.
    """

    steps: int = 600
    windows_per_step: int = 1
    cross_entropy: float = 0.0
    relative_rate: float | None = None
    unrounded_share: float = 0.25
    warm_up: float = 0.1
    evaluate_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("steps", 1, 10_000_000), ("windows_per_step", 1, 1 << 20), ("cross_entropy", 0, 1),
            ("relative_rate", 0, 1), ("unrounded_share", 0, 1), ("warm_up", 0, 1),
            ("evaluate_every", 1, 10_000_000),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigError(f"{value} is outside {least}..{most}", where=name)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step as a share of the peak."""
        rising = max(1, round(self.warm_up * self.steps))
        if step < rising:
            return (step + 1) / rising
        share = (step - rising) / max(1, self.steps - rising)
        return _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * share)) / 2

    def batch(self, step: int, num_windows: int) -> list[int]:
        """Return which windows a step sees: all once, in a drawn order, before any again."""
        first = step * self.windows_per_step
        places = range(first, first + self.windows_per_step)
        orders = {
            epoch: torch.randperm(
                num_windows, generator=torch.Generator().manual_seed(self.seed + epoch)
            )
            for epoch in {place // num_windows for place in places}
        }
        return [int(orders[place // num_windows][place % num_windows]) for place in places]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What training came to: the held-out loss after each evaluation, by step, and the best."""

    held_out_losses: dict[int, float]
    best_step: int


def distillation_loss(
    logits: torch.Tensor, expected: torch.Tensor, tokens: torch.Tensor, cross_entropy: float = 0.0
) -> torch.Tensor:
    """Return the mean divergence KL(expected || model) of a token, mixed with the text's entropy.

    Shapes: logits and expected [S, T, V]; tokens [S, T].
    """
    found = logits[:, :-1].float().log_softmax(-1)
    loss = found.new_zeros(())
    if cross_entropy < 1:
        wanted = expected[:, :-1].float().log_softmax(-1)
        divergence = (wanted.exp() * (wanted - found)).sum(-1).mean()
        loss = loss + (1 - cross_entropy) * divergence
    if cross_entropy > 0:
        nll = -found.gather(-1, tokens[:, 1:, None]).mean()
        loss = loss + cross_entropy * nll
    return loss


def distill(
    student: nn.Module,
    teacher: nn.Module,
    windows: torch.Tensor,
    held_out: torch.Tensor,
    plan: TrainingPlan,
    *,
    kept: TrainingState | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Trained:
    """Train a student that `prepare_qat` made; it ends with the weights of least held-out loss.

    With `kept` the state is written after each evaluation, and training goes on from there, to the
    same bytes on the same machine with as many threads. `progress(done, steps, loss)` is called
    after each step.

    Shapes: windows and held_out [S, T] of tokens.
    Raises: ConfigError if nothing is to be trained, or the loss is not finite; OutputError if the
    state cannot be written.
    """
    weights = {n: p for n, p in student.named_parameters() if p.requires_grad}
    if not weights or not any(isinstance(m, FakeQuantizedLinear) for m in student.modules()):
        raise ConfigError(
            "has no quantized layer to train", where=type(student).__name__,
            hint="call prepare_qat(model, scheme) before",
        )  # fmt: skip
    kept_tensors = {**weights, **_input_scales(student)}
    groups = [
        {"params": [w], "peak": rate * _size(w)}
        for w, rate in zip(weights.values(), _rates(student, weights, plan), strict=True)
    ]
    optimizer = torch.optim.AdamW(groups, betas=_BETAS, weight_decay=0.0)
    state = TrainingState() if kept is None else kept
    step = state.restore(kept_tensors, optimizer)
    teacher.eval()
    student.eval()  # no dropout: the loss is to be that of what will run
    if step == 0:
        state.judge(0, _held_out_loss(student, teacher, held_out, plan), kept_tensors)
    while step < plan.steps:
        batch = windows[plan.batch(step, len(windows))]
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * plan.rate(step)
        loss = _step(student, teacher, batch, plan, weights, optimizer)
        step += 1
        if progress:
            progress(step, plan.steps, loss)
        if step % plan.evaluate_every == 0 or step == plan.steps:
            state.judge(step, _held_out_loss(student, teacher, held_out, plan), kept_tensors)
            state.keep(step, kept_tensors, optimizer)
    return Trained(held_out_losses=dict(state.losses), best_step=state.take_best(kept_tensors))


def _rates(
    student: nn.Module, weights: Mapping[str, nn.Parameter], plan: TrainingPlan
) -> list[float]:
    """Return the peak rate of each weight as a share of its root mean square."""
    layers = [m for m in student.modules() if isinstance(m, FakeQuantizedLinear)]
    rate = plan.relative_rate
    if rate is None:
        bits = min(layer.scheme.activation_bits for layer in layers)
        rate = _NOISY_RATE if bits < _NOISY_BITS else _RATE
    rounded = {id(layer.weight) for layer in layers}
    return [
        rate * (1 if id(weight) in rounded else plan.unrounded_share) for weight in weights.values()
    ]


def _input_scales(student: nn.Module) -> dict[str, torch.Tensor]:
    """Return the static scales of inputs, which training moves without a gradient."""
    return {
        f"{name}.input_scale": layer.input_scale
        for name, layer in student.named_modules()
        if isinstance(layer, FakeQuantizedLinear) and layer.input_scale is not None
    }


def _size(weight: torch.Tensor) -> float:
    """Return the root mean square of a tensor, one of zeros: what its steps are measured by."""
    return float(weight.detach().double().square().mean().sqrt()) or 1.0


def _logits(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    found = model(tokens)
    logits: torch.Tensor = getattr(found, "logits", found)
    return logits


def _parts(batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Split a batch into what is computed at once."""
    return torch.split(batch, max(1, _MAX_BATCH_TOKENS // batch.shape[1]))


def _loss(
    student: nn.Module, teacher: nn.Module, tokens: torch.Tensor, plan: TrainingPlan
) -> torch.Tensor:
    with torch.no_grad():
        expected = _logits(teacher, tokens)
    return distillation_loss(_logits(student, tokens), expected, tokens, plan.cross_entropy)


def _step(
    student: nn.Module, teacher: nn.Module, batch: torch.Tensor, plan: TrainingPlan,
    weights: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer,
) -> float:  # fmt: skip
    """Take one step; return the loss before it."""
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for tokens in _parts(batch):
        loss = _loss(student, teacher, tokens, plan) * (len(tokens) / len(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    if not math.isfinite(total):
        raise ConfigError(
            f"the loss is {total}", where="training", hint="train with a smaller relative_rate"
        )
    nn.utils.clip_grad_norm_(weights.values(), _MAX_NORM)
    optimizer.step()
    return total


@torch.no_grad()
def _held_out_loss(
    student: nn.Module, teacher: nn.Module, windows: torch.Tensor, plan: TrainingPlan
) -> float:
    parts = _parts(windows)
    losses = (float(_loss(student, teacher, tokens, plan)) * len(tokens) for tokens in parts)
    return sum(losses) / len(windows)
