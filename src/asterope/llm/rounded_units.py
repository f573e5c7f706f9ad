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
    Calibrated,
    InputSums,
    Scheme,
    common_amax,
    concatenate,
    quantize_calibrated,
)

__all__ = ["Unit", "round_units", "units_of"]

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

    Raises: as `quantize_calibrated`.
    """
    assert isinstance(linear, PlainLinear)
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
