"""A branch of low rank beside a quantized weight: what is lost most is computed in bf16.

With W = R + B A the layer is Q(x) Q(R)^T + (x A^T) B^T. It loses e R^T, with e the errors of its
rounded inputs, and x (W - B A - Q(R))^T. The first branch makes the former least: it is the
truncated singular value decomposition of W, its columns weighted by the root mean square of their
inputs' errors. Once R is rounded, the branch that makes the latter least follows from the sum of
products of the inputs, and R from that branch again.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import torch

from asterope.formats import global_scale_of
from asterope.quant.fake_quant import fake_inputs
from asterope.quant.gptq import DAMPING
from asterope.quant.inputs import InputSums
from asterope.quant.linear import QuantizedLinear, storable
from asterope.quant.nvfp4_svd import is_nvfp4_svd
from asterope.quant.rotation import rotate_inputs, rotate_rows
from asterope.quant.scheme import Scheme

__all__ = ["Branch", "BranchFitting", "static_input_scale"]

_LEAST_WEIGHT = 1e-3  # of a column, as a share of the root mean square
_MORE_COLUMNS, _ITERATIONS = 8, 8


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """Two factors. Shapes: first [rank, K] and second [N, rank], bf16."""

    first: torch.Tensor
    second: torch.Tensor

    @classmethod
    def nearest(cls, weight: torch.Tensor, rank: int) -> Branch:
        """Return the branch nearest to a weight of unknown inputs. Shapes: weight [N, K]."""
        return _branch(*_factors(weight.detach().float(), rank))

    def taken_from(self, weight: torch.Tensor) -> torch.Tensor:
        """Return what is left of a weight. Shapes: weight and result [N, K], result float32."""
        return weight.float() - self.second.float() @ self.first.float()

    def beside(self, layer: QuantizedLinear, inputs: InputSums) -> QuantizedLinear:
        """Return the layer that has it beside what is left.

        Inputs in nvfp4 get a static upper scale, which checkpoints of such layers ask for.
        """
        scheme = dataclasses.replace(layer.scheme, rank=len(self.first))
        static = static_input_scale(float(inputs.largest.max()), scheme)
        return dataclasses.replace(
            layer, scheme=scheme, lora_a=self.first, lora_b=self.second, input_scale=static
        )


def static_input_scale(largest: float, scheme: Scheme) -> float | None:
    """Return the upper scale of inputs up to `largest`, None where each row has its own."""
    if scheme.format is None or not is_nvfp4_svd(scheme):
        return None
    return float(storable(global_scale_of(largest, scheme.format)))


class BranchFitting:
    """The branches of a weight whose inputs are known, of the scheme's rank.

    Shapes: weight [N, K].
    Cost: the Cholesky factor of the sum of products, K^3 / 3 multiplications in float64.
    Source: Li et al., SVDQuant, arXiv:2411.05007 (`first`, there with columns weighted alike);
    Zhang et al., LQER, arXiv:2402.02446 (`again`, there with a diagonal metric).
    """

    def __init__(self, weight: torch.Tensor, inputs: InputSums, scheme: Scheme) -> None:
        assert scheme.rank is not None
        self._weight, self._inputs, self._scheme = weight.float(), inputs, scheme
        self._rank = scheme.rank

    def first(self) -> Branch:
        """Return the branch beside which rounding inputs loses least."""
        column = _error_sizes(self._inputs, self._scheme)
        left, right = _factors(self._weight * column, self._rank)
        return _branch(left, right / column)

    @functools.cached_property
    def _metric(self) -> torch.Tensor:
        """The Cholesky factor of the products. Shapes: [K, K]."""
        products = self._inputs.products.clone()
        mean = float(products.diagonal().mean()) or 1.0
        products.diagonal().add_(DAMPING * mean)
        factor: torch.Tensor = torch.linalg.cholesky(products).div_(mean**0.5)
        return factor.float()

    def again(self, layer: QuantizedLinear) -> Branch:
        """Return the branch that is nearest on the inputs to what a layer misses of the weight."""
        missing = self._weight - layer.dequantize()
        left, right = _factors(missing @ self._metric, self._rank)
        return _branch(
            left, torch.linalg.solve_triangular(self._metric, right, upper=False, left=False)
        )


def _branch(left: torch.Tensor, right: torch.Tensor) -> Branch:
    first, second = (factor.to(torch.bfloat16).contiguous() for factor in (right, left))
    return Branch(first, second)


def _error_sizes(inputs: InputSums, scheme: Scheme) -> torch.Tensor:
    """Return the root mean square of what rounding changes each input by, as shares of the mean's.

    Ones where inputs are not rounded. Shapes: result [K].
    """
    sample, size = inputs.sample, scheme.rotation
    if scheme.activation_format is None:
        return torch.ones(sample.shape[1])
    error = fake_inputs(sample, scheme) - (sample if size is None else rotate_inputs(sample, size))
    if size is not None:
        error = rotate_rows(error, size)
    square = error.square().mean(0)
    mean = square.mean().clamp_min(torch.finfo(torch.float32).tiny)
    return (square / mean).sqrt().clamp_min(_LEAST_WEIGHT)


def _factors(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of the nearest matrix of a rank, by subspace iteration.

    Shapes: matrix [N, K]; result [N, rank], [rank, K].
    Source: Halko et al., arXiv:0909.4061, algorithm 4.4.
    """
    width = min(rank + _MORE_COLUMNS, *matrix.shape)
    start = torch.randn(matrix.shape[1], width, generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(matrix.T @ basis).Q
        basis = torch.linalg.qr(matrix @ basis).Q
    left, size, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    half = size[:rank].sqrt()
    return basis @ left[:, :rank] * half, half[:, None] * right[:rank]
