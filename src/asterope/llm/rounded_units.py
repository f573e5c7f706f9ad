"""Quantize the weights of a place of a layer, one unit that engines fuse after another."""

from __future__ import annotations

import itertools
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
)

__all__ = ["Unit", "round_units", "units_of"]

_TURNS = 2
Unit = Mapping[str, int]
"""The projections that engines fuse, by full name, and the outputs of each."""


def units_of(model: Model, index: int) -> dict[str, list[Unit]]:
    """List the outputs of the projections of each place of a layer by full name, unit by unit."""
    return {
        place: [{f"model.layers.{index}.{name}": n for name, n, _, _ in unit} for unit in units]
        for place, units in fused_pieces(model.config).items()
    }


def round_units(
    linear: Linear, units: Sequence[Unit], scheme: Scheme, algorithm: Algorithm,
    sums: Sequence[InputSums],
) -> Linear:  # fmt: skip
    """Quantize each of the projections that a linear layer is made of; `sums` are of each unit.

    Where the scheme has a rank, they are quantized beside one branch for all of them.

    Raises: as `quantize_calibrated`.
    """
    assert isinstance(linear, PlainLinear)
    if scheme.rank is None or not algorithm.needs_text:
        return _rounded(linear, units, scheme, algorithm, sums)
    return _beside_branch(linear, units, scheme, algorithm, sums)


def _beside_branch(
    linear: PlainLinear, units: Sequence[Unit], scheme: Scheme, algorithm: Algorithm,
    sums: Sequence[InputSums],
) -> QuantizedLinear:  # fmt: skip
    """Quantize what a branch leaves, fit the branch to what that misses, and so on."""
    [inputs] = sums  # experts have no branches
    fitting = BranchFitting(linear.weight, inputs, scheme)
    branch = fitting.first()
    for _ in range(_TURNS):
        rest = PlainLinear(branch.taken_from(linear.weight), linear.bias)
        made = _rounded(rest, units, scheme.without_branch, algorithm, sums)
        branch = fitting.again(made)
    return branch.beside(made, inputs)


def _rounded(
    linear: PlainLinear, units: Sequence[Unit], scheme: Scheme, algorithm: Algorithm,
    sums: Sequence[InputSums],
) -> QuantizedLinear:  # fmt: skip
    rows = [n for unit in units for n in unit.values()]
    weights = iter(torch.split(linear.weight, rows))
    biases = iter([None] * len(rows) if linear.bias is None else torch.split(linear.bias, rows))
    made = []
    for unit, inputs in zip(units, sums, strict=True):
        calibrated = Calibrated(algorithm, inputs, scheme)
        parts = list(itertools.islice(weights, len(unit)))
        # Engines that fuse projections keep one global scale for them.
        amax = common_amax(parts, scheme) if len(unit) > 1 else None
        made += [
            quantize_calibrated(weight, scheme, calibrated, name=name, bias=next(biases), amax=amax)
            for name, weight in zip(unit, parts, strict=True)
        ]
    return concatenate(made)
