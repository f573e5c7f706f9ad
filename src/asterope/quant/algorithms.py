"""The algorithms of post-training quantization, by name: which scales, and how to round."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from asterope.errors import ConfigError
from asterope.formats import encode
from asterope.quant.gptq import Feedback, gptq_codes
from asterope.quant.inputs import InputSums
from asterope.quant.linear import QuantizedLinear, from_quantized
from asterope.quant.mix import Mix, Plan
from asterope.quant.rotation import rotate_rows
from asterope.quant.rtn import check_weight, quantize_weight
from asterope.quant.scales import least_error_scales, rule_scales
from asterope.quant.scheme import Scheme

__all__ = ["ALGORITHMS", "Algorithm", "Calibrated", "algorithm", "quantize_calibrated"]

_RANK = 32  # of the branches of algorithms that have them


@dataclass(frozen=True, kw_only=True, slots=True)
class Algorithm:
    """How weights are quantized where the inputs of their layers are known.

    With `equalizes` inputs are divided by powers of two where that loses less, and what comes
    before the layer by the same. With `searches_scales` a block's scale is the one near the rule's
    that loses least, weighted by the inputs' mean squares. With `feeds_back` columns that are not
    rounded yet make up for the errors of those that are (GPTQ). With `tunes` the rounding and the
    norms of each layer are then trained until it gives what the original gives. Where a scheme has
    a rank, a low-rank branch takes what rounding inputs loses most of; with `rank` each scheme has
    one, this where it says none.
    """

    name: str
    describe: str
    equalizes: bool = False
    searches_scales: bool = False
    feeds_back: bool = False
    tunes: bool = False
    rank: int | None = None

    def ranked(self, scheme: Scheme) -> Scheme:
        """Return a scheme with the algorithm's own rank, where it has none."""
        if self.rank is None or scheme.rank is not None or scheme.format is None:
            return scheme
        return dataclasses.replace(scheme, rank=self.rank)

    def plan(self, plan: Plan) -> Plan:
        """Return a plan whose schemes are as `ranked` says."""
        if isinstance(plan, Scheme):
            return self.ranked(plan)
        return Mix(tuple(tuple(s and self.ranked(s) for s in row) for row in plan.layers))

    @property
    def needs_text(self) -> bool:
        """Whether it has to see inputs."""
        return self.equalizes or self.searches_scales or self.feeds_back


ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType({
    row.name: row
    for row in (
        Algorithm(name="rtn", describe="round to nearest, scales by the rule; needs no text"),
        Algorithm(
            name="mse", describe="scales of least weighted error, then nearest",
            searches_scales=True,
        ),
        Algorithm(
            name="gptq", describe="the same scales, then GPTQ in activation order",
            searches_scales=True, feeds_back=True,
        ),
        Algorithm(
            name="awq", describe="inputs equalized as by AWQ or SmoothQuant, then as mse",
            equalizes=True, searches_scales=True,
        ),
        Algorithm(
            name="awq_gptq", describe="inputs equalized, then as gptq",
            equalizes=True, searches_scales=True, feeds_back=True,
        ),
        Algorithm(
            name="svdquant", describe="as awq_gptq, beside a branch of rank 32 in bf16",
            equalizes=True, searches_scales=True, feeds_back=True, rank=_RANK,
        ),
        Algorithm(
            name="tuned", describe="as awq_gptq, then rounding and norms tuned layer by layer",
            equalizes=True, searches_scales=True, feeds_back=True, tunes=True,
        ),
        Algorithm(
            name="svdquant_tuned", describe="as svdquant, then tuned, the branch too",
            equalizes=True, searches_scales=True, feeds_back=True, tunes=True, rank=_RANK,
        ),
    )
})  # fmt: skip


def algorithm(name: str) -> Algorithm:
    """Return an algorithm by name, in any case.

    Raises: ConfigError with the nearest name.
    """
    found = ALGORITHMS.get(name.strip().lower())
    if found is not None:
        return found
    close = difflib.get_close_matches(name.lower(), ALGORITHMS, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    raise ConfigError(
        f"there is no algorithm {name!r}", where="algorithm",
        hint=f"{guess}use {', '.join(ALGORITHMS)}",
    )  # fmt: skip


class Calibrated:
    """What an algorithm knows of a layer's inputs; projections of the same inputs share it."""

    def __init__(self, algorithm: Algorithm, inputs: InputSums, scheme: Scheme) -> None:
        self.algorithm = algorithm
        if algorithm.needs_text and scheme.rotation is not None:
            inputs = inputs.rotated(scheme.rotation)
        self.importance = inputs.importance.numpy()
        self.feedback = Feedback(inputs) if algorithm.feeds_back else None


def quantize_calibrated(
    weight: torch.Tensor,
    scheme: Scheme,
    calibrated: Calibrated,
    *,
    name: str,
    bias: torch.Tensor | None = None,
    amax: float | None = None,
) -> QuantizedLinear:
    """Quantize the weight of a linear layer whose inputs are known.

    `amax` is as in `quantize_weight`. Shapes: weight [N, K], float32, bf16 or fp16; bias [N].

    Raises: as `quantize_weight`.
    """
    how = calibrated.algorithm
    if not how.needs_text:
        return quantize_weight(weight, scheme, name=name, bias=bias, amax=amax)
    scheme.check_shape(weight.shape, name)
    check_weight(weight, name)
    values = weight.detach().float().contiguous()
    if scheme.rotation is not None:
        values = rotate_rows(values, scheme.rotation)
    rows = values.numpy()
    amax = float(np.abs(rows).max()) if amax is None else amax
    if how.searches_scales:
        scales = least_error_scales(rows, scheme, amax=amax, importance=calibrated.importance)
    else:
        scales = rule_scales(rows, scheme, amax=amax)
    if calibrated.feedback is None:
        codes = encode(rows / scales.per_column(rows.shape[1]), scales.format.element)
    else:
        codes = gptq_codes(values, scales, calibrated.feedback)
    return from_quantized(scales.quantized(codes), scheme, bias=bias)
