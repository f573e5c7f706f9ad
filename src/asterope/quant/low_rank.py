"""A branch of low rank beside a quantized weight: what is lost most is computed in bf16.

With W = R + B A the layer is Q(x) Q(R)^T + (x A^T) B^T. Where inputs are rounded, by e = Q(x) - x,
most is lost to e R^T: B A is what of W makes that largest, so that R makes it least. It is the
truncated singular value decomposition of W whose columns are weighted by the root mean square of
their inputs' errors.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from asterope.formats import global_scale_of
from asterope.quant.fake_quant import fake_inputs
from asterope.quant.inputs import InputSums
from asterope.quant.linear import QuantizedLinear, storable
from asterope.quant.nvfp4_svd import is_nvfp4_svd
from asterope.quant.rotation import rotate_inputs, rotate_rows
from asterope.quant.scheme import Scheme

__all__ = ["Branch", "branch_of"]

_LEAST_WEIGHT = 1e-3  # of a column, as a share of the root mean square
_MORE_COLUMNS, _ITERATIONS = 8, 8


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """Two factors. Shapes: first [rank, K] and second [N, rank], bf16."""

    first: torch.Tensor
    second: torch.Tensor

    def taken_from(self, weight: torch.Tensor) -> torch.Tensor:
        """Return what is left of a weight. Shapes: weight and result [N, K], result float32."""
        return weight.float() - self.second.float() @ self.first.float()

    def beside(self, layer: QuantizedLinear, inputs: InputSums) -> QuantizedLinear:
        """Return the layer that has it beside what is left.

        Inputs in nvfp4 get a static upper scale, which checkpoints of such layers ask for.
        """
        scheme = dataclasses.replace(layer.scheme, rank=len(self.first))
        static = None
        if scheme.format is not None and is_nvfp4_svd(scheme):
            static = float(storable(global_scale_of(float(inputs.largest.max()), scheme.format)))
        return dataclasses.replace(
            layer, scheme=scheme, lora_a=self.first, lora_b=self.second, input_scale=static
        )


def branch_of(weight: torch.Tensor, inputs: InputSums, scheme: Scheme) -> Branch:
    """Return the branch of a weight, of the scheme's rank.

    Shapes: weight [N, K].
    Source: Li et al., SVDQuant, arXiv:2411.05007, which weights all columns alike.
    """
    assert scheme.rank is not None
    square = _error_squares(inputs, scheme)
    mean = square.mean().clamp_min(torch.finfo(torch.float32).tiny)
    column = (square / mean).sqrt().clamp_min(_LEAST_WEIGHT)
    left, size, right = _truncated_svd(weight.float() * column, scheme.rank)
    half = size.sqrt()
    first, second = half[:, None] * right / column, left * half
    return Branch(first.to(torch.bfloat16).contiguous(), second.to(torch.bfloat16).contiguous())


def _error_squares(inputs: InputSums, scheme: Scheme) -> torch.Tensor:
    """Return the mean square of what rounding changes each input by, or of the input itself.

    The latter is where inputs are not rounded. Shapes: result [K].
    """
    if scheme.activation_format is None:
        return inputs.importance
    sample = inputs.sample
    size = scheme.rotation
    error = fake_inputs(sample, scheme) - (sample if size is None else rotate_inputs(sample, size))
    if size is not None:
        error = rotate_rows(error, size)
    return error.square().mean(0)


def _truncated_svd(
    matrix: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the largest singular values and their vectors, by subspace iteration.

    Shapes: matrix [N, K]; result [N, rank], [rank], [rank, K].
    Source: Halko et al., arXiv:0909.4061, algorithm 4.4.
    """
    width = min(rank + _MORE_COLUMNS, *matrix.shape)
    start = torch.randn(matrix.shape[1], width, generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(matrix.T @ basis).Q
        basis = torch.linalg.qr(matrix @ basis).Q
    left, size, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ left[:, :rank], size[:rank], right[:rank]
