"""Block Hadamard rotations: inputs and weights in turned coordinates, where outliers are spread.

With R = H / sqrt(n), H Sylvester's matrix of n rows, blocks of n neighbours along K become x R and
w R: R R^T is one, so that products stay what they are. Weights are rotated before they are
quantized; inputs when they come, by a product on the tensor unit like any other.
"""

from __future__ import annotations

import functools
import math

import torch

from asterope.kernels.linear import linear

__all__ = ["rotate_inputs", "rotate_products", "rotate_rows"]


@functools.cache
def _hadamard(size: int) -> torch.Tensor:
    """Return Sylvester's matrix of ones and minus ones. Shapes: [size, size] float64."""
    found = torch.ones(1, 1, dtype=torch.float64)
    while len(found) < size:
        found = torch.cat([torch.cat([found, found], 1), torch.cat([found, -found], 1)])
    return found


@functools.cache
def _turning(size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the signs and what to multiply sums by, as the kernels take them."""
    signs = _hadamard(size).to(dtype=torch.bfloat16, device=device)
    return signs, torch.full((size,), 1 / math.sqrt(size), device=device)


def rotate_inputs(x: torch.Tensor, size: int) -> torch.Tensor:
    """Rotate the inputs of a layer, rounded to bf16, on the kernels.

    Shapes: x [M, K]; result [M, K] float32.
    """
    signs, scale = _turning(size, x.device)
    blocks = x.to(torch.bfloat16).reshape(-1, size)
    turned = linear(blocks, signs, weight_scale=scale, out_dtype=torch.float32)
    return turned.view(x.shape)


def rotate_rows(weight: torch.Tensor, size: int) -> torch.Tensor:
    """Rotate a weight, in float64. Doing it twice gives it back but for rounding.

    Shapes: weight [N, K]; result the same, float32.
    """
    blocks = weight.double().reshape(-1, size) @ _hadamard(size)
    return (blocks / math.sqrt(size)).reshape(weight.shape).float()


def rotate_products(products: torch.Tensor, size: int) -> torch.Tensor:
    """Return the sum of x^T x of rotated inputs from that of the inputs.

    Shapes: products [K, K] float64; result the same.
    """
    k, signs = products.shape[0], _hadamard(size)
    half = (products.reshape(-1, size) @ signs).reshape(k, k)
    whole = (half.T.reshape(-1, size) @ signs).reshape(k, k)
    return whole.T / size
