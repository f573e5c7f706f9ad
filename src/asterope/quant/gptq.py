"""GPTQ: round one column after another, and let those to come make up for the error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from asterope.errors import CheckpointError
from asterope.formats import decode, encode
from asterope.quant.inputs import InputSums
from asterope.quant.scales import Scales

__all__ = ["DAMPING", "Feedback", "gptq_codes"]

DAMPING = 0.01
"""The share of the mean curvature that is added to each input's."""

_COLUMNS = 128
_MOST_TRIES = 8


class Feedback:
    """In which order the columns of a weight are rounded, and what the error of each asks of later.

    Columns go in falling order of their inputs' mean square ("activation order"): the errors of
    those that matter most find the most others to make up for them. Scales are fixed before, so
    that blocks stay whatever the order is.

    Shapes: order [K]; upper [K, K] float32, the upper Cholesky factor of the inverse curvature, in
    that order.
    """

    def __init__(self, inputs: InputSums, *, damping: float = DAMPING) -> None:
        """Factor the curvature. An input that is always zero asks nothing and makes up for nothing.

        Raises: CheckpointError if no damping makes it positive definite.
        """
        diagonal = inputs.products.diagonal().clone()
        mean = float(diagonal.mean())
        if mean == 0:
            raise CheckpointError("all its inputs are zero", where=inputs.name)
        diagonal[diagonal == 0] = mean
        self.order = torch.argsort(diagonal, descending=True, stable=True)
        curvature = inputs.products[self.order[:, None], self.order]
        curvature.diagonal().copy_(diagonal[self.order])
        self.upper = _inverse_factor(curvature, damping * mean, inputs.name)


def _inverse_factor(curvature: torch.Tensor, damping: float, name: str) -> torch.Tensor:
    for _ in range(_MOST_TRIES):
        curvature.diagonal().add_(damping)
        factor, failed = torch.linalg.cholesky_ex(curvature)
        if not int(failed):
            torch.cholesky_inverse(factor, out=factor)
            upper, failed = torch.linalg.cholesky_ex(factor, upper=True)
            if not int(failed):
                found: torch.Tensor = upper.float()
                return found
        damping *= 10
    raise CheckpointError(
        "the products of its inputs cannot be inverted", where=name,
        hint="calibrate on more text",
    )  # fmt: skip


def gptq_codes(weight: torch.Tensor, scales: Scales, feedback: Feedback) -> npt.NDArray[np.uint8]:
    """Return the codes of a weight that lose little of the layer's output.

    Shapes: weight [N, K] float32; result [N, K], one code a byte.
    Source: Frantar et al., GPTQ, arXiv:2210.17323; fixed scales in activation order as in
    arXiv:2509.23202.
    Cost: N x K^2 multiplications.
    """
    element = scales.format.element
    order, upper = feedback.order, feedback.upper
    left = weight.T[order].contiguous()
    per_column = torch.from_numpy(scales.per_column(weight.shape[1])).expand_as(weight)
    scale_of = per_column.T[order].contiguous()
    codes = np.empty(tuple(left.shape), np.uint8)
    for start in range(0, len(left), _COLUMNS):
        stop = min(start + _COLUMNS, len(left))
        errors = torch.empty(stop - start, left.shape[1])
        factor = upper[start:stop, start:stop]
        for j in range(stop - start):
            scale = scale_of[start + j]
            column = left[start + j] - factor[:j, j] @ errors[:j]
            codes[start + j] = encode((column / scale).numpy(), element)
            found = torch.from_numpy(decode(codes[start + j], element))
            torch.div(column - found * scale, factor[j, j], out=errors[j])
        left[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    unordered = np.empty_like(codes)
    unordered[order.numpy()] = codes
    return np.ascontiguousarray(unordered.T)
