"""Learn which way each weight is rounded, under scales that stay as they are."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import nn

from asterope.formats import ElementFormat, encode
from asterope.quant.fake_quant import saturation_limit
from asterope.quant.linear import QuantizedLinear, held_codes
from asterope.quant.rotation import rotate_rows

__all__ = ["LearnedRounding"]


class LearnedRounding(nn.Module):
    """A weight that moves from one code to the next, each under the scale of its block.

    `latent` is the weight in units of its scale. It starts where the weight was, or, where the
    quantized layer to start from has another code than the nearest, at the edge of that code's
    numbers: what rounds it first gives that layer's codes, and what nearly went the other way
    needs little to go. Gradients pass the rounding straight through.

    Shapes: weight [N, K]; latent [N, K] float32.
    Source: learned rounding after Cheng et al., AutoRound, arXiv:2309.05516, without its bound of
    one step.
    """

    def __init__(self, weight: torch.Tensor, start: QuantizedLinear) -> None:
        super().__init__()
        assert start.scheme.format is not None
        self.start, self.element = start, start.scheme.format.element
        rotation = start.scheme.rotation
        values = weight.float()
        branch = start.branch()
        if branch is not None:
            values = values - branch
        if rotation is not None:
            values = rotate_rows(values, rotation)
        self.scale = start.element_scales()
        numbers, low, high = _cells(self.element)
        beside = start.without_branch
        held = dataclasses.replace(beside, scheme=dataclasses.replace(beside.scheme, rotation=None))
        place = torch.searchsorted(numbers, held.dequantize().div_(self.scale).sub_(_SLACK))
        self.latent = nn.Parameter(torch.clamp(values / self.scale, low[place], high[place]))

    def forward(self) -> torch.Tensor:
        """Return the weight as it is rounded now. Shapes: result [N, K] float32."""
        rounded: torch.Tensor = _Rounded.apply(  # type: ignore[no-untyped-call]
            self.latent, self.element
        )
        return rounded * self.scale

    def quantized(self) -> QuantizedLinear:
        """Return the layer with the codes of now; all else is that of the one to start from."""
        codes = encode(_nearest(self.latent.detach(), self.element).numpy(), self.element)
        return dataclasses.replace(self.start, codes=held_codes(codes, self.element))


_SLACK = 1e-4
"""Less than half the distance of two numbers of any element format, more than division loses."""


@functools.cache
def _cells(element: ElementFormat) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the numbers of a format in rising order, and from where to where rounds to each.

    Shapes: [numbers] each.
    """
    above = torch.tensor([element.value(code) for code in range(1, element.max_code + 1)])
    numbers = torch.cat([-above.flip(0), torch.zeros(1), above])
    middles = (numbers[1:] + numbers[:-1]) / 2
    # What lies between two numbers, in the middle, goes to the lower one in `_nearest`.
    low = torch.nextafter(middles, torch.tensor(torch.inf))
    ends = torch.tensor([torch.inf])
    return numbers, torch.cat([-ends, low]), torch.cat([middles, ends])


def _nearest(latent: torch.Tensor, element: ElementFormat) -> torch.Tensor:
    numbers, _, high = _cells(element)
    found: torch.Tensor = numbers[torch.bucketize(latent, high[:-1])]
    return found


class _Rounded(torch.autograd.Function):
    """The nearest number of a format; gradients stop where that is more than half a step away."""

    @staticmethod
    def forward(ctx: Any, latent: torch.Tensor, element: ElementFormat) -> torch.Tensor:
        ctx.save_for_backward(latent.abs() <= saturation_limit(element))
        return _nearest(latent, element)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        [grad], [inside] = grads, ctx.saved_tensors
        return grad * inside, None
