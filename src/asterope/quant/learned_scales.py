"""Block scales that are learned: what the rule makes of each block's largest magnitude, moved."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from asterope.formats import (
    BlockFormat,
    ScaleRule,
    amax_scale,
    decode,
    e4m3_scale_codes,
    encode,
    global_scale_of,
    scale_codes,
)
from asterope.quant.linear import QuantizedLinear, from_quantized, storable
from asterope.quant.rotation import rotate_rows
from asterope.quant.rtn import check_no_branch, check_weight
from asterope.quant.scales import Scales
from asterope.quant.scheme import Scheme

__all__ = ["quantize_scaled", "scales_shape"]

_Floats = npt.NDArray[np.float32]


def scales_shape(shape: tuple[int, int], scheme: Scheme) -> tuple[int, int]:
    """Return how many scales a weight has: rows of blocks, or one a row or tensor."""
    (n, k), granularity = shape, scheme.format.granularity if scheme.format else "tensor"
    if isinstance(granularity, int):
        return n, k // granularity
    return (1 if granularity == "tensor" else n), 1


def quantize_scaled(
    weight: torch.Tensor,
    scheme: Scheme,
    log2_scale: torch.Tensor,
    *,
    name: str,
    amax: float | None = None,
) -> QuantizedLinear:
    """Round to nearest under scales by the scheme's rule, from magnitudes times 2^log2_scale.

    All zeros give what `quantize_weight` gives.

    Shapes: weight [N, K]; log2_scale as `scales_shape`.
    Raises: as `quantize_weight`.
    """
    check_no_branch(scheme)
    scheme.check_shape(weight.shape, name)
    check_weight(weight, name)
    fmt = scheme.format
    assert fmt is not None
    values = weight.detach().float().contiguous()
    if scheme.rotation is not None:
        values = rotate_rows(values, scheme.rotation)
    rows = values.numpy()
    upper = None
    if scheme.rule == ScaleRule.TWO_LEVEL:
        largest = float(np.abs(rows).max()) if amax is None else amax
        upper = storable(global_scale_of(largest, fmt))
    magnitudes = np.abs(rows).reshape(*log2_scale.shape, -1).max(axis=-1)
    moved = magnitudes * np.exp2(log2_scale.detach().float().numpy())
    scales = Scales(
        stored=_stored(moved, scheme, fmt, upper), global_scale=upper, scheme=scheme,
        num_rows=len(rows),
    )  # fmt: skip
    return from_quantized(scales.quantized(encode(_quotient(rows, scales), fmt.element)), scheme)


def _stored(
    amax: _Floats, scheme: Scheme, fmt: BlockFormat, upper: np.float32 | None
) -> npt.NDArray[np.generic]:
    if fmt.scale.name == "e8m0":
        return scale_codes(amax, fmt.element, str(scheme.rule))
    if fmt.scale.name == "e4m3":
        return e4m3_scale_codes(amax, fmt.element, np.float32(1) if upper is None else upper)
    return amax_scale(amax, fmt.element)


def _quotient(rows: _Floats, scales: Scales) -> _Floats:
    """Divide as `formats.quantize` does, which for e4m3 scales is by two factors."""
    repeats = rows.shape[1] // scales.stored.shape[1]
    if scales.format.scale.name != "e4m3":
        return rows / scales.per_column(rows.shape[1])
    upper = np.float32(1) if scales.global_scale is None else scales.global_scale
    inverse = np.float32(1) / upper / decode(scales.stored, scales.format.scale)
    quotient: _Floats = rows * np.repeat(inverse, repeats, axis=1)
    return quotient
