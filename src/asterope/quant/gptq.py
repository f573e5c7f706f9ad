"""GPTQ: round one column after another, and let those to come make up for the error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from asterope.errors import CheckpointError
from asterope.formats import ElementFormat
from asterope.quant.column_loop import round_columns
from asterope.quant.inputs import InputSums
from asterope.quant.scales import Scales

__all__ = ["DAMPING", "Feedback", "gptq_codes"]

_Floats = npt.NDArray[np.float32]

DAMPING = 0.01
"""The share of the mean curvature that is added to each input's."""

_COLUMNS, _ROWS = 128, 1024
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
        diagonal = diagonal[self.order]
        for tries in range(_MOST_TRIES):
            curvature = inputs.products[self.order[:, None], self.order]
            curvature.diagonal().copy_(diagonal + damping * mean * 10**tries)
            if _invert(curvature):
                self.upper = curvature.float()
                return
        raise CheckpointError(
            "the products of its inputs cannot be inverted", where=inputs.name,
            hint="calibrate on more text",
        )  # fmt: skip


def _invert(curvature: torch.Tensor) -> bool:
    """Make of a matrix the upper Cholesky factor of its inverse, in place; return if it has one."""
    columns = curvature.T  # it is symmetric, and LAPACK works on columns
    codes = torch.empty(0, dtype=torch.int32)
    for inverts in (True, False):
        torch.linalg.cholesky_ex(columns, out=(columns, codes))
        if int(codes):
            return False
        if inverts:
            torch.cholesky_inverse(columns, out=columns)
    return True


def gptq_codes(weight: torch.Tensor, scales: Scales, feedback: Feedback) -> npt.NDArray[np.uint8]:
    """Return the codes of a weight that lose little of the layer's output.

    Shapes: weight [N, K] float32; result [N, K], one code a byte.
    Source: Frantar et al., GPTQ, arXiv:2210.17323; fixed scales in activation order as in
    arXiv:2509.23202.
    Cost: N x K^2 multiplications.
    """
    order, upper = feedback.order, feedback.upper.numpy()
    per_column = np.broadcast_to(scales.per_column(weight.shape[1]), weight.shape)
    codes = np.empty(weight.shape, np.uint8)
    for first in range(0, len(weight), _ROWS):
        rows = slice(first, first + _ROWS)
        left = weight[rows].T[order].contiguous().numpy()
        scale_of = np.ascontiguousarray(per_column[rows].T[order.numpy()])
        codes[rows, order.numpy()] = _rounded(left, scale_of, upper, scales.format.element).T
    return codes


def _rounded(
    left: _Floats, scale_of: _Floats, upper: _Floats, element: ElementFormat
) -> npt.NDArray[np.uint8]:
    """Round columns, in their order; `left` is overwritten.

    Shapes: left, scale_of and result [K, N].
    """
    codes = np.empty(left.shape, np.uint8)
    for start in range(0, len(left), _COLUMNS):
        block = slice(start, start + _COLUMNS)
        codes[block], errors = round_columns(
            left[block], scale_of[block], upper[block, block], element
        )
        after = torch.from_numpy(left[block.stop :])
        after.addmm_(
            torch.from_numpy(upper[block, block.stop :]).T, torch.from_numpy(errors), alpha=-1
        )
    return codes
