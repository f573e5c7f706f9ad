"""The gate of a SwiGLU feed-forward: silu(gate) * up."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.operands import check_rows

__all__ = ["silu_mul", "silu_mul_reference"]

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
    check_rows("silu_mul", gate_up=gate_up)
    if gate_up.shape[1] % 2:
        raise ShapeError(f"rows of {gate_up.shape[1]} have no two halves", where="silu_mul")
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    y = torch.empty((rows, width), dtype=gate_up.dtype, device=gate_up.device)
    if rows and width:
        block = min(_BLOCK, triton.next_power_of_2(width))
        _silu_mul_kernel[(rows, triton.cdiv(width, block))](
            gate_up, y, width, gate_up.stride(0), y.stride(0), BLOCK=block
        )
    return y


def silu_mul_reference(gate_up: torch.Tensor) -> torch.Tensor:
    """Return what `silu_mul` computes, in float64."""
    gate, up = gate_up.double().chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up
