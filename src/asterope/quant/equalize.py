"""Equalize a layer's inputs: divide some, multiply their weights, so that rounding loses less.

What is divided is taken out of the norm or projection before, so that nothing is done at run time.
Scales are powers of two: what they change of weights and norms in floating point is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from asterope.quant.inputs import InputSums

__all__ = ["equalizing_scale"]

# AWQ's exponents of what the inputs are like, and SmoothQuant's split between inputs and weights.
_INPUTS_ALONE = (0.25, 0.5, 0.75, 1.0)
_SPLITS = (0.35, 0.5, 0.65, 0.8)
_MOST = 8.0  # no scale is beyond 2^8 or below 2^-8


def equalizing_scale(
    weight: torch.Tensor,
    inputs: InputSums,
    rounded: Callable[[torch.Tensor, torch.Tensor], Callable[[torch.Tensor], torch.Tensor]],
) -> torch.Tensor:
    """Return the powers of two to divide inputs by that lose least of a sample's outputs.

    `rounded` quantizes a weight, whose inputs are divided by a scale, and returns the layer that it
    makes: the error is that of what will run, activations included. Ones are among what is tried.

    Shapes: weight [N, K]; result [K] float32.
    Source: Lin et al., AWQ, arXiv:2306.00978; Xiao et al., SmoothQuant, arXiv:2211.10438.
    """
    weight, sample = weight.float(), inputs.sample
    expected = sample @ weight.T

    def error(scale: torch.Tensor) -> float:
        found = rounded(weight * scale, scale)(sample / scale)
        return float(found.float().sub_(expected).square_().sum())

    best = torch.ones(weight.shape[1])
    least = error(best)
    for scale in _candidates(weight, inputs):
        lost = error(scale)
        if lost < least:
            best, least = scale, lost
    return best


def _candidates(weight: torch.Tensor, inputs: InputSums) -> Iterator[torch.Tensor]:
    typical = _log2(inputs.importance.sqrt())
    largest, heaviest = _log2(inputs.sample.abs().amax(0)), _log2(weight.abs().amax(0))
    for power in _INPUTS_ALONE:
        yield _power_of_two(power * typical)
    for split in _SPLITS:
        yield _power_of_two(split * largest - (1 - split) * heaviest)


def _log2(values: torch.Tensor) -> torch.Tensor:
    """Return log2 around its mean; of what is zero, as if it were the mean."""
    logs = values.clamp(min=torch.finfo(torch.float32).tiny).log2()
    is_known = values > 0
    mean = logs[is_known].mean() if bool(is_known.any()) else torch.zeros(())
    return torch.where(is_known, logs - mean, 0.0)


def _power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    return torch.exp2((exponent - exponent.mean()).round().clamp(-_MOST, _MOST))
