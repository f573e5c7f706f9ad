"""RMSNorm, with the residual addition that precedes it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.operands import check_rows, check_vectors

__all__ = ["rms_norm", "rms_norm_reference"]


@triton.jit
def _rms_norm_kernel(
    x, residual, weight, y, K, eps, stride_x, stride_residual, stride_y,
    RESIDUAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK)
    on = offs < K
    value = tl.load(x + row * stride_x + offs, mask=on, other=0.0).to(tl.float32)
    if RESIDUAL:
        sum_at = residual + row * stride_residual + offs
        added = value + tl.load(sum_at, mask=on, other=0.0).to(tl.float32)
        rounded = added.to(residual.dtype.element_ty)
        tl.store(sum_at, rounded, mask=on)
        value = rounded.to(tl.float32)
    mean_square = tl.sum(value * value, axis=0) / K
    normal = (value * tl.rsqrt(mean_square + eps)).to(y.dtype.element_ty)
    gain = tl.load(weight + offs, mask=on, other=0.0)
    tl.store(y + row * stride_y + offs, (gain * normal).to(y.dtype.element_ty), mask=on)


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Return x / rms(x) * weight for each row; with a residual, x is first added to it in place.

    The result is written to `out`, which may be x, where it is given.

    Shapes: x, residual, out and result [M, K]; weight [K].
    Raises: ShapeError if they do not fit.
    """
    added = x if residual is None else residual
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device) if out is None else out
    check_rows("rms_norm", x=x, residual=added, out=y)
    rows, k = x.shape
    check_vectors("rms_norm", k, weight=weight)
    for name, other in (("residual", added), ("out", y)):
        if other.shape != x.shape:
            raise ShapeError(
                f"{name} {list(other.shape)} does not fit x {list(x.shape)}", where="rms_norm"
            )
    if rows:
        _rms_norm_kernel[(rows,)](
            x, residual, weight, y, k, eps, x.stride(0), added.stride(0), y.stride(0),
            RESIDUAL=residual is not None, BLOCK=triton.next_power_of_2(k),
        )  # fmt: skip
    return y


def rms_norm_reference(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return what `rms_norm` computes, in float64."""
    wide = x.double()
    return wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
