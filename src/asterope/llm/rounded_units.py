"""Quantize the weights of a place of a layer, one unit that engines fuse after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from asterope.llm.linears import Linear, PlainLinear
from asterope.llm.model import Model
from asterope.llm.pieces import fused_pieces
from asterope.quant import (
    Algorithm,
    BranchFitting,
    Calibrated,
    InputSums,
    QuantizedLinear,
    Scheme,
    common_amax,
    concatenate,
    quantize_calibrated,
    stack,
    with_corrected_bias,
)

__all__ = ["Unit", "round_units", "units_of"]

_TURNS = 2
Unit = Mapping[str, int]
"""The projections that engines fuse, by full name, and the outputs of each."""


def units_of(model: Model, index: int) -> dict[str, list[Unit]]:
    """List the outputs of the projections of each place of a layer by full name, unit by unit."""
    return {
        place: [{f"model.layers.{index}.{name}": n for name, n, _, _ in unit} for unit in units]
        for place, units in fused_pieces(model.config.at(index)).items()
    }


def round_units(
    linear: Linear, units: Sequence[Unit], scheme: Scheme, algorithm: Algorithm,
    sums: Sequence[InputSums],
) -> Linear:  # fmt: skip
    """Quantize each of the projections that a linear layer is made of; `sums` are of each unit.

    Where the scheme has a rank, each unit is quantized beside one branch for all of it.

    Raises: as `quantize_calibrated`.
    """
    assert isinstance(linear, PlainLinear)
    has_branch = scheme.rank is not None and algorithm.needs_text
    rounded = _beside_branch if has_branch else _rounded
    rows = [sum(unit.values()) for unit in units]
    weights = torch.split(linear.weight, rows)
    biases = [None] * len(rows) if linear.bias is None else torch.split(linear.bias, rows)
    made = []
    for weight, bias, unit, inputs in zip(weights, biases, units, sums, strict=True):
        part = PlainLinear(weight, bias)
        made.append(rounded(part, unit, scheme, algorithm, inputs))
        if algorithm.needs_text:
            made[-1] = with_corrected_bias(made[-1], weight, inputs)
    return stack(made)


def _beside_branch(
    linear: PlainLinear, unit: Unit, scheme: Scheme, algorithm: Algorithm, inputs: InputSums
) -> QuantizedLinear:
    """Quantize what a branch leaves, fit the branch to what that misses, and so on."""
    fitting = BranchFitting(linear.weight, inputs, scheme)
    branch = fitting.first()
    for _ in range(_TURNS):
        rest = PlainLinear(branch.taken_from(linear.weight), linear.bias)
        made = _rounded(rest, unit, scheme.without_branch, algorithm, inputs)
        branch = fitting.again(made)
    return branch.beside(made, inputs)


def _rounded(
    linear: PlainLinear, unit: Unit, scheme: Scheme, algorithm: Algorithm, inputs: InputSums
) -> QuantizedLinear:
    rows = list(unit.values())
    weights = torch.split(linear.weight, rows)
    biases = [None] * len(rows) if linear.bias is None else torch.split(linear.bias, rows)
    calibrated = Calibrated(algorithm, inputs, scheme)
    # Engines that fuse projections keep one global scale for them.
    amax = common_amax(weights, scheme) if len(unit) > 1 else None
    return concatenate([
        quantize_calibrated(weight, scheme, calibrated, name=name, bias=bias, amax=amax)
        for name, weight, bias in zip(unit, weights, biases, strict=True)
    ])  # fmt: skip
