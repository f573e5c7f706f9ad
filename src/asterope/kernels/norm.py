"""RMSNorm, with the residual addition that precedes it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["rms_norm", "rms_norm_reference"]


@triton.jit
def _rms_norm_kernel(
    x, residual, weight, y, K, eps, stride_x, stride_y, RESIDUAL: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    offs = tl.arange(0, BLOCK)
    on = offs < K
    value = tl.load(x + row * stride_x + offs, mask=on, other=0.0).to(tl.float32)
    if RESIDUAL:
        sum_at = residual + row * stride_x + offs
        added = value + tl.load(sum_at, mask=on, other=0.0).to(tl.float32)
        rounded = added.to(residual.dtype.element_ty)
        tl.store(sum_at, rounded, mask=on)
        value = rounded.to(tl.float32)
    mean_square = tl.sum(value * value, axis=0) / K
    normal = (value * tl.rsqrt(mean_square + eps)).to(y.dtype.element_ty)
    gain = tl.load(weight + offs, mask=on, other=0.0)
    tl.store(y + row * stride_y + offs, (gain * normal).to(y.dtype.element_ty), mask=on)


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """Return x / rms(x) * weight for each row; with a residual, x is first added to it in place.

    Shapes: x, residual and result [M, K]; weight [K].
    """
    rows, k = x.shape
    y = torch.empty_like(x)
    if rows:
        _rms_norm_kernel[(rows,)](
            x, residual, weight, y, k, eps, x.stride(0), y.stride(0),
            RESIDUAL=residual is not None, BLOCK=triton.next_power_of_2(k),
        )  # fmt: skip
    return y


def rms_norm_reference(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return what `rms_norm` computes, in float64."""
    wide = x.double()
    return wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
