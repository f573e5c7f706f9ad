"""The gate of a SwiGLU feed-forward: silu(gate) * up, and the clamped one of gpt-oss."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.operands import check_rows

__all__ = ["clamped_swiglu", "clamped_swiglu_reference", "silu_mul", "silu_mul_reference"]

_BLOCK = 2048


@triton.jit
def _silu_mul_kernel(x, y, width, stride_x, stride_y, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offs = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    on = offs < width
    gate = tl.load(x + row * stride_x + offs, mask=on, other=0.0).to(tl.float32)
    up = tl.load(x + row * stride_x + width + offs, mask=on, other=0.0)
    silu = (gate / (1.0 + tl.exp(-gate))).to(y.dtype.element_ty)
    tl.store(y + row * stride_y + offs, (silu * up).to(y.dtype.element_ty), mask=on)


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """Return silu(gate) * up for the two halves of each row.

    Shapes: gate_up [M, 2 I]; result [M, I].
    Raises: ShapeError if they do not fit.
    """
    return _gated("silu_mul", _silu_mul_kernel, gate_up)


def _gated(name: str, kernel: Any, gate_up: torch.Tensor, *numbers: float) -> torch.Tensor:
    """Return what a kernel makes of the two halves of each row, and some numbers."""
    check_rows(name, gate_up=gate_up)
    if gate_up.shape[1] % 2:
        raise ShapeError(f"rows of {gate_up.shape[1]} have no two halves", where=name)
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    y = torch.empty((rows, width), dtype=gate_up.dtype, device=gate_up.device)
    if rows and width:
        block = min(_BLOCK, triton.next_power_of_2(width))
        kernel[rows, triton.cdiv(width, block)](
            gate_up, y, width, *numbers, gate_up.stride(0), y.stride(0), BLOCK=block
        )
    return y


def silu_mul_reference(gate_up: torch.Tensor) -> torch.Tensor:
    """Return what `silu_mul` computes, in float64."""
    gate, up = gate_up.double().chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


@triton.jit
def _clamped_swiglu_kernel(
    x, y, width, alpha, limit, stride_x, stride_y, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    offs = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    on = offs < width
    gate = tl.load(x + row * stride_x + offs, mask=on, other=0.0).to(tl.float32)
    up = tl.load(x + row * stride_x + width + offs, mask=on, other=0.0).to(tl.float32)
    gate = tl.where(gate > limit, limit, gate)
    up = tl.where(up > limit, limit, tl.where(up < -limit, -limit, up))
    made = (up + 1.0) * gate / (1.0 + tl.exp(-alpha * gate))
    tl.store(y + row * stride_y + offs, made.to(y.dtype.element_ty), mask=on)


def clamped_swiglu(gate_up: torch.Tensor, *, alpha: float, limit: float) -> torch.Tensor:
    """Return (up + 1) * gate * sigmoid(alpha gate) for the two halves of each row, both clamped.

    The gate is at most `limit`, the other between -limit and limit.

    Shapes: gate_up [M, 2 I]; result [M, I].
    Raises: ShapeError if they do not fit.
    Source: gpt-oss, as in transformers' `GptOssExperts`.
    """
    return _gated("clamped_swiglu", _clamped_swiglu_kernel, gate_up, alpha, limit)


def clamped_swiglu_reference(gate_up: torch.Tensor, *, alpha: float, limit: float) -> torch.Tensor:
    """Return what `clamped_swiglu` computes, in float64."""
    gate, up = gate_up.double().chunk(2, dim=-1)
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return (up + 1) * gate * (alpha * gate).sigmoid()
