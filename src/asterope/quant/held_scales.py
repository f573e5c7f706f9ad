"""Block scales that stay as an algorithm chose them, while the weight in training moves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from asterope.formats import encode
from asterope.quant.linear import QuantizedLinear, held_codes
from asterope.quant.rotation import rotate_rows
from asterope.quant.rtn import check_weight
from asterope.quant.scheme import Scheme

__all__ = ["HeldScales"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeldScales:
    """The scales of a quantized weight without a branch, as `QuantizedLinear` holds them.

    Rules make of a block's largest magnitude what loses little on most weights. Algorithms search
    for scales that lose less on this one, and a rule would not give them again.
    """

    scheme: Scheme
    scales: torch.Tensor | None
    row_scale: torch.Tensor | None

    def quantized(self, weight: torch.Tensor, *, name: str) -> QuantizedLinear:
        """Round a weight to the nearest under these scales; what they do not reach saturates.

        Shapes: weight [N, K].
        Raises: CheckpointError if the weight is not finite, naming it.
        """
        check_weight(weight, name)
        values, fmt = weight.detach().float().contiguous(), self.scheme.format
        assert fmt is not None
        if self.scheme.rotation is not None:
            values = rotate_rows(values, self.scheme.rotation)
        n, k = values.shape
        shell = dataclasses.replace(
            QuantizedLinear.empty(n, k, self.scheme), scales=self.scales, row_scale=self.row_scale
        )
        codes = encode((values / shell.element_scales()).numpy(), fmt.element)
        return dataclasses.replace(shell, codes=held_codes(codes, fmt.element))
