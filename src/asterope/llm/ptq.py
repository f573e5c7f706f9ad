"""Post-training quantization: one layer after another, each on what the quantized ones before give.

Shapes: S windows of T tokens.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from asterope.errors import ConfigError, UnsupportedError
from asterope.kernels import ExpertRows
from asterope.llm.kept_layers import KeptLayers
from asterope.llm.layers import Layer, Linear, PlainLinear
from asterope.llm.lazy_layers import LazyLayers
from asterope.llm.model import Model
from asterope.llm.pieces import fused_pieces, projections
from asterope.llm.states import MAX_BATCH_TOKENS, States
from asterope.quant import (
    PLACES,
    Algorithm,
    Calibrated,
    InputSums,
    Plan,
    Scheme,
    common_amax,
    concatenate,
    equalizing_scale,
    mix_of,
    quantize_calibrated,
)
from asterope.quant import algorithm as named_algorithm

_Unit = Mapping[str, int]
"""The projections that engines fuse, by full name, and the outputs of each."""

__all__ = ["check_plain", "input_sums", "quantize_layer", "quantize_layers"]


@dataclass(frozen=True, slots=True, eq=False)
class _Watched:
    """A linear layer that adds its inputs up."""

    inner: Linear
    sums: InputSums

    @property
    def num_bytes(self) -> int:
        return self.inner.num_bytes

    def apply(self, x: torch.Tensor, *, experts: ExpertRows | None = None) -> torch.Tensor:
        self.sums.add(x)
        return self.inner.apply(x, experts=experts)


@torch.inference_mode()
def quantize_layers(
    model: Model,
    scheme: Plan,
    algorithm: Algorithm,
    windows: torch.Tensor,
    *,
    kept: KeptLayers | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Return a model whose layers are quantized to a scheme, or a mix, by an algorithm.

    With `kept` each layer is written there when it is done, and those that are there are not done
    again. If the model's layers are made when they are asked for, so are those of the result then,
    from what is kept.

    Shapes: windows [S, T] of tokens to calibrate on.
    Cost: each window passes each layer twice; the states of all windows and the curvature of one
    layer's inputs are held.

    Raises: CheckpointError for inputs or weights that are not finite, naming the layer; ShapeError
    if the format's block does not divide a layer; ConfigError for tokens the model does not have.
    """
    if algorithm.needs_text and model.config.experts is not None:
        raise UnsupportedError(
            f"{algorithm.name} does not calibrate experts", where=model.name or "model",
            hint="quantize with rtn",
        )  # fmt: skip
    model.check_tokens(windows.flatten().tolist(), where="calibration text")
    batches = [
        States.start(model, part)
        for part in windows.split(max(1, MAX_BATCH_TOKENS // windows.shape[1]))  # type: ignore[no-untyped-call]
    ]
    layers, mix = [], mix_of(scheme, len(model.layers))
    for index, layer in enumerate(model.layers):
        _check_plain_layer(model, layer)
        schemes = mix.of(index)
        quantized = kept.load(index, layer, schemes) if kept else None
        if quantized is None:
            sums = input_sums(model, index, layer, batches)
            quantized = quantize_layer(model, index, layer, schemes, algorithm, sums)
            if kept:
                kept.keep(index, quantized)
        is_left_on_disk = kept is not None and model.is_lazy
        layers.append(quantized.with_linears(_nothing) if is_left_on_disk else quantized)
        if len(layers) < len(model.layers):  # nothing asks what the last one gives
            for batch in batches:
                batch.advance(model, index, quantized)
        if progress:
            progress(index + 1, len(model.layers))
    made: Sequence[Layer] = layers
    if kept and model.is_lazy:
        made = LazyLayers(
            len(layers), lambda index: kept.reload(index, layers[index], mix.of(index)),
            mix.simplest,
        )
    described = f"{scheme.describe()}, {algorithm.name}"
    return dataclasses.replace(model, layers=made, scheme=described)


def _nothing(place: str, _: Linear) -> Linear:
    return PlainLinear(torch.empty(0))


def check_plain(model: Model) -> None:
    """Check that nothing of a model is quantized yet.

    Raises: ConfigError if something is.
    """
    for layer in model.layers:
        _check_plain_layer(model, layer)


def _check_plain_layer(model: Model, layer: Layer) -> None:
    if not all(isinstance(getattr(layer, place), PlainLinear) for place in PLACES):
        raise ConfigError(
            "is quantized already", where=model.name or "model",
            hint="quantize the original checkpoint",
        )  # fmt: skip


def _units(model: Model, index: int) -> dict[str, list[_Unit]]:
    """List the outputs of the projections of each place of a layer by full name, unit by unit."""
    return {
        place: [{f"model.layers.{index}.{name}": n for name, n, _, _ in unit} for unit in units]
        for place, units in fused_pieces(model.config).items()
    }


def input_sums(
    model: Model, index: int, layer: Layer, batches: Sequence[States]
) -> dict[str, InputSums]:
    """Run a layer on all batches for its inputs; return their sums by place."""
    sums = {
        place: InputSums(k, name=f"model.layers.{index}.{name}")
        for place, ((name, _, k, _), *_) in projections(model.config).items()
    }
    watched = layer.with_linears(lambda place, inner: _Watched(inner, sums[place]))
    for batch in batches:
        batch.copy().advance(model, index, watched)
    return sums


def quantize_layer(
    model: Model, index: int, layer: Layer, schemes: Mapping[str, Scheme | None],
    algorithm: Algorithm, sums: Mapping[str, InputSums],
) -> Layer:  # fmt: skip
    """Return a layer quantized where it has schemes.

    Raises: as `quantize_layers`.
    """
    sums = dict(sums)
    units = _units(model, index)
    if algorithm.equalizes:
        layer = _equalized(layer, schemes, units, sums)

    def rounded(place: str, inner: Linear) -> Linear:
        scheme = schemes[place]
        if scheme is None:
            return inner
        return _rounded(inner, units[place], scheme, Calibrated(algorithm, sums[place], scheme))

    return layer.with_linears(rounded)


def _equalized(
    layer: Layer, schemes: Mapping[str, Scheme | None], units: Mapping[str, list[_Unit]],
    sums: dict[str, InputSums],
) -> Layer:  # fmt: skip
    """Return a layer that computes the same from inputs that round better; put their sums right.

    The attention's outputs stay as they are: their scales would have to be one for several heads.
    """

    def scale_of(place: str, linear: PlainLinear) -> torch.Tensor:
        scheme = schemes[place]
        if scheme is None:
            return torch.ones(linear.weight.shape[1])
        known = Calibrated(named_algorithm("rtn"), sums[place], scheme)

        def made(weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
            return _rounded(PlainLinear(weight), units[place], scheme, known).apply

        scale = equalizing_scale(linear.weight, sums[place], made)
        sums[place] = sums[place].divided(scale)
        return scale

    down, gate_up, qkv = _plain(layer.down), _plain(layer.gate_up), _plain(layer.qkv)
    scale = scale_of("down", down)
    down = _columns_times(down, scale)
    gate_up = _rows_divided(gate_up, torch.cat([torch.ones_like(scale), scale]))
    scale = scale_of("gate_up", gate_up)
    gate_up, mlp_norm = _columns_times(gate_up, scale), layer.mlp_norm / scale
    scale = scale_of("qkv", qkv)
    qkv, attention_norm = _columns_times(qkv, scale), layer.attention_norm / scale
    return dataclasses.replace(
        layer, down=down, gate_up=gate_up, qkv=qkv,
        mlp_norm=mlp_norm.to(layer.mlp_norm.dtype),
        attention_norm=attention_norm.to(layer.attention_norm.dtype),
    )  # fmt: skip


def _columns_times(linear: PlainLinear, scale: torch.Tensor) -> PlainLinear:
    return PlainLinear((linear.weight * scale).to(linear.weight.dtype), linear.bias)


def _rows_divided(linear: PlainLinear, scale: torch.Tensor) -> PlainLinear:
    bias = None if linear.bias is None else (linear.bias / scale).to(linear.bias.dtype)
    return PlainLinear((linear.weight / scale[:, None]).to(linear.weight.dtype), bias)


def _plain(linear: Linear) -> PlainLinear:
    assert isinstance(linear, PlainLinear)
    return linear


def _rounded(
    linear: Linear, units: Sequence[_Unit], scheme: Scheme, calibrated: Calibrated
) -> Linear:
    """Quantize each of the projections that a linear layer is made of."""
    assert isinstance(linear, PlainLinear)
    rows = [n for unit in units for n in unit.values()]
    weights = iter(torch.split(linear.weight, rows))
    biases = iter([None] * len(rows) if linear.bias is None else torch.split(linear.bias, rows))
    made = []
    for unit in units:
        parts = list(itertools.islice(weights, len(unit)))
        # Engines that fuse projections keep one global scale for them.
        amax = common_amax(parts, scheme) if len(unit) > 1 else None
        made += [
            quantize_calibrated(weight, scheme, calibrated, name=name, bias=next(biases), amax=amax)
            for name, weight in zip(unit, parts, strict=True)
        ]
    return concatenate(made)
