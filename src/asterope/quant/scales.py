"""The scales of a weight: by its format's rule, or those that lose least."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.formats import (
    BlockFormat,
    QuantizedTensor,
    ScaleRule,
    decode,
    encode,
    global_scale_of,
    quantize,
)
from asterope.quant.linear import storable
from asterope.quant.scheme import Scheme

__all__ = ["Scales", "least_error_scales", "rule_scales"]

# Of scales that are no powers of two: shares of the rule's. Above one, FP4 trades its largest
# number for finer steps below it (four over six); below one, large values are clipped.
_SHARES = (1.5, 1.25, 1.1, 1.05, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
_EXPONENTS = (1, -1, -2)

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scales:
    """The scales of a weight [N, K], which its codes are found for.

    Shapes: stored [N, K / block], [N, 1], [1, 1] or [N / 128, K / 128]: codes of the scale format,
    or float32.
    """

    stored: npt.NDArray[Any]
    global_scale: np.float32 | None
    scheme: Scheme
    num_rows: int

    @property
    def format(self) -> BlockFormat:
        """The weight's format."""
        assert self.scheme.format is not None
        return self.scheme.format

    @property
    def values(self) -> _Floats:
        """What codes are multiplied by, the global scale included. Shapes: as stored."""
        values = self.stored
        if values.dtype != np.float32:
            values = decode(values, self.format.scale)
        return values if self.global_scale is None else values * self.global_scale

    def per_column(self, num_columns: int) -> _Floats:
        """Return the scale of each element of a row of blocks. Shapes: [N or 1, K]."""
        values, size = self.values, self.format.granularity
        if isinstance(size, tuple):
            rows = np.repeat(values, size[0], axis=0)[: self.num_rows]
            return np.repeat(rows, size[1], axis=1)[:, :num_columns]
        return np.repeat(values, num_columns // values.shape[1], axis=1)

    def quantized(self, codes: npt.NDArray[np.uint8]) -> QuantizedTensor:
        """Return codes of these scales as a tensor. Shapes: codes [N, K]."""
        return QuantizedTensor(
            codes=codes, scales=self.stored, global_scale=self.global_scale, format=self.format,
            rule=ScaleRule(str(self.scheme.rule)), rounding="nearest_even", axis=1, seed=None,
        )  # fmt: skip


def rule_scales(weight: _Floats, scheme: Scheme, *, amax: float) -> Scales:
    """Return the scales that the scheme's rule gives; `amax` is what a global scale follows from.

    Shapes: weight [N, K].
    """
    fmt = scheme.format
    assert fmt is not None
    upper = None
    if scheme.rule == ScaleRule.TWO_LEVEL:
        upper = float(storable(global_scale_of(amax, fmt)))
    found = quantize(weight, fmt, rule=scheme.rule, global_scale=upper)
    return Scales(
        stored=found.scales, global_scale=found.global_scale, scheme=scheme,
        num_rows=len(weight),
    )  # fmt: skip


def least_error_scales(
    weight: _Floats, scheme: Scheme, *, amax: float, importance: _Floats
) -> Scales:
    """Return the scales near the rule's that lose least: the sum of importance x error^2 a block.

    The rule's own is kept where no other is better. Scales of several rows stay as they are.

    Shapes: weight [N, K]; importance [K].
    """
    first = rule_scales(weight, scheme, amax=amax)
    if first.stored.shape[0] != weight.shape[0] or isinstance(first.format.granularity, tuple):
        return first
    best, least = first.stored.copy(), _errors(weight, first, importance)
    for stored in _candidates(first):
        errors = _errors(weight, dataclasses.replace(first, stored=stored), importance)
        is_better = errors < least
        best[is_better], least[is_better] = stored[is_better], errors[is_better]
    return dataclasses.replace(first, stored=best)


def _candidates(first: Scales) -> Iterator[npt.NDArray[Any]]:
    scale = first.format.scale
    if scale.specials == "scale":
        for step in _EXPONENTS:
            moved = first.stored.astype(np.int32) + step
            yield np.clip(moved, 0, scale.max_code).astype(np.uint8)
        return
    plain = first.stored.dtype == np.float32
    values = first.stored if plain else decode(first.stored, scale)
    smallest = np.float32(scale.min_normal if plain else scale.min_subnormal)
    for share in _SHARES:
        wanted = np.maximum(values * np.float32(share), smallest)
        yield wanted if plain else encode(wanted, scale).astype(np.uint8)


def _errors(weight: _Floats, scales: Scales, importance: _Floats) -> npt.NDArray[np.float64]:
    """Return the weighted squared error of each block. Shapes: as the stored scales."""
    per_column = scales.per_column(weight.shape[1])
    found = decode(encode(weight / per_column, scales.format.element), scales.format.element)
    found *= per_column
    found -= weight
    found *= found
    found *= importance
    blocks = found.reshape(*scales.stored.shape, -1)
    total: npt.NDArray[np.float64] = blocks.sum(axis=-1, dtype=np.float64)
    return total
