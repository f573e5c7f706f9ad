"""Round in the forward pass and hand gradients on in the backward pass: fake quantization.

What is rounded, and to what, is what `QuantizedLinear` computes: the same codec makes both.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Any

import torch

from asterope.formats import ElementFormat
from asterope.quant.held_scales import HeldScales
from asterope.quant.learned_scales import quantize_scaled
from asterope.quant.linear import QuantizedLinear, round_inputs
from asterope.quant.rotation import rotate_inputs, rotate_rows
from asterope.quant.rtn import quantize_weight
from asterope.quant.scheme import Scheme

__all__ = ["fake_inputs", "fake_weight", "quantize_latent", "saturation_limit"]


class _StraightThrough(torch.autograd.Function):
    """Return `values`; give `x` their gradient where it is `inside`, rotated back.

    `log2_scale` gets the gradient of its blocks' scales: of value = scale x round(x / scale) that
    is round(x / scale) - x / scale inside, round(x / scale) where it saturates; `x` is rotated.
    Source: Esser et al., Learned step size quantization, arXiv:1902.08153.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, values: torch.Tensor, inside: torch.Tensor | None,
        rotation: int | None, log2_scale: torch.Tensor | None, rotated: torch.Tensor | None,
    ) -> torch.Tensor:  # fmt: skip
        ctx.rotation, ctx.dtype = rotation, x.dtype
        moved = None
        if log2_scale is not None:
            assert rotated is not None
            kept = rotated if inside is None else rotated * inside
            moved = values - kept
            ctx.scales_shape = log2_scale.shape
        ctx.save_for_backward(inside, moved)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        [grad] = grads
        inside, moved = ctx.saved_tensors
        of_scales = None
        if moved is not None:
            rows, blocks = ctx.scales_shape
            products = (grad * moved).view(rows, blocks, -1)
            of_scales = math.log(2) * products.sum(-1)
        grad = grad if inside is None else grad * inside
        if ctx.rotation is not None:
            grad = rotate_rows(grad, ctx.rotation)
        return grad.to(ctx.dtype), None, None, None, of_scales, None


def _straight_through(
    x: torch.Tensor, values: torch.Tensor, inside: torch.Tensor | None, rotation: int | None,
    log2_scale: torch.Tensor | None = None, rotated: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    found: torch.Tensor = _StraightThrough.apply(  # type: ignore[no-untyped-call]
        x, values, inside, rotation, log2_scale, rotated
    )
    return found


def quantize_latent(
    weight: torch.Tensor, scheme: Scheme, *, name: str, amax: float | None,
    log2_scale: torch.Tensor | None = None, held: HeldScales | None = None,
) -> QuantizedLinear:  # fmt: skip
    """Return the quantized weight that a weight in training stands for.

    With `log2_scale` the largest magnitude of each block is multiplied by 2 to its power before
    the scheme's rule makes a scale of it; with `held` no rule is asked. `amax` is as in
    `quantize_weight`.

    Shapes: weight [N, K]; log2_scale [N, blocks].
    Raises: as `quantize_weight`.
    """
    if held is not None:
        return held.quantized(weight, name=name)
    if log2_scale is None:
        return quantize_weight(weight, scheme, name=name, amax=amax)
    return quantize_scaled(weight, scheme, log2_scale, name=name, amax=amax)


def fake_weight(
    weight: torch.Tensor, scheme: Scheme, *, name: str, amax: float | None,
    log2_scale: torch.Tensor | None = None, held: HeldScales | None = None,
) -> torch.Tensor:  # fmt: skip
    """Return the values of the quantized weight, with gradients straight through.

    Where the scheme rotates, they are those of the rotated weight.

    Shapes: as `quantize_latent`; result [N, K] float32.
    Raises: as `quantize_weight`.
    """
    with torch.no_grad():
        rotated = weight.float()
        if scheme.rotation is not None:
            rotated = rotate_rows(rotated, scheme.rotation)
        made = quantize_latent(
            weight, scheme, name=name, amax=amax, log2_scale=log2_scale, held=held
        )
        made = dataclasses.replace(made, scheme=dataclasses.replace(scheme, rotation=None))
        values, inside = made.dequantize(), _inside(rotated, made)
    return _straight_through(weight, values, inside, scheme.rotation, log2_scale, rotated)


def fake_inputs(x: torch.Tensor, scheme: Scheme, *, scale: float | None = None) -> torch.Tensor:
    """Return the inputs of a layer as the scheme rounds them, with gradients straight through.

    `scale` is a static one.

    Shapes: x [M, K]; result the same, float32.
    """
    fmt = scheme.activation_format
    with torch.no_grad():
        rotated = x if scheme.rotation is None else rotate_inputs(x, scheme.rotation)
        made = round_inputs(rotated.contiguous(), scheme, scale=scale)
        if fmt is None:
            values, inside = made.codes.float(), None
        else:
            held = QuantizedLinear(
                scheme=Scheme(weights="fp8_row" if fmt == "fp8" else fmt), codes=made.codes,
                scales=made.scales, row_scale=made.row_scale,
            )  # fmt: skip
            values, inside = held.dequantize(), _inside(rotated, held)
    return _straight_through(x, values, inside, scheme.rotation)


@cache
def saturation_limit(element: ElementFormat) -> float:
    """Return how far numbers round by no more than half a step; beyond, they saturate."""
    largest, before = (element.value(element.max_code - i) for i in range(2))
    return largest + (largest - before) / 2


def _inside(x: torch.Tensor, layer: QuantizedLinear) -> torch.Tensor | None:
    """Return which numbers do not saturate in their quantized form, None if all do not."""
    fmt = layer.scheme.format
    assert fmt is not None
    inside = x.float().abs() <= layer.element_scales() * saturation_limit(fmt.element)
    return None if bool(inside.all()) else inside
