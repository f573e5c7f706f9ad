"""Post-training quantization: one layer after another, each on what the quantized ones before give.

Shapes: S windows of T tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch

from asterope.errors import ConfigError
from asterope.llm.equalized import equalized
from asterope.llm.kept_layers import KeptLayers
from asterope.llm.layer_inputs import layer_inputs
from asterope.llm.layers import Layer, Linear, PlainLinear
from asterope.llm.lazy_layers import LazyLayers
from asterope.llm.model import Model
from asterope.llm.pieces import scheme_place
from asterope.llm.rounded_units import round_units, units_of
from asterope.llm.states import in_batches, start_states
from asterope.llm.tuning import tune_layer
from asterope.native import freed_at_once, release_freed
from asterope.quant import Algorithm, InputSums, Plan, Scheme, mix_of

__all__ = ["check_plain", "quantize_layer", "quantize_layers"]


@torch.inference_mode()
@freed_at_once()
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
    from what is kept. Experts are calibrated on the tokens that the router sends them, or, where
    these are fewer than `MIN_EXPERT_TOKENS`, on all; the result's `few_tokens` names them.

    Shapes: windows [S, T] of tokens to calibrate on.
    Cost: each window passes each layer twice; the states of all windows and the curvature of one
    layer's inputs are held.

    Raises: CheckpointError for inputs or weights that are not finite, naming the layer; ShapeError
    if the format's block does not divide a layer; ConfigError for tokens the model does not have.
    """
    model.check_tokens(windows.flatten().tolist(), where="calibration text")
    batches = start_states(model, in_batches(windows))
    originals = [batch.copy() for batch in batches] if algorithm.tunes else []
    few_tokens: dict[str, int] = {}
    layers, mix = [], mix_of(scheme, len(model.layers))
    for index, layer in enumerate(model.layers):
        _check_plain_layer(model, layer)
        schemes = mix.of(index)
        quantized = kept.load(index, layer, schemes) if kept else None
        for original in originals:
            original.advance(model, index, layer)
        if quantized is not None and kept:
            few_tokens |= kept.few_tokens(index)
        else:
            release_freed()
            inputs = layer_inputs(model, index, layer, batches)
            release_freed()
            plain, quantized = quantize_layer(model, index, layer, schemes, algorithm, inputs.sums)
            if algorithm.tunes:
                quantized = tune_layer(model, index, plain, quantized, batches, originals)
            few_tokens |= inputs.few_tokens
            if kept:
                kept.keep(index, quantized, inputs.few_tokens)
            del inputs, plain  # the next layer's are as large
        is_left_on_disk = kept is not None and model.is_lazy
        layers.append(quantized.with_linears(_nothing) if is_left_on_disk else quantized)
        release_freed()
        if len(layers) < len(model.layers):  # nothing asks what the last one gives
            for batch in batches:
                batch.advance(model, index, quantized)
        if progress:
            progress(index + 1, len(model.layers))
    made: Sequence[Layer] = layers
    if kept and model.is_lazy:
        made = LazyLayers(
            len(layers),
            lambda index: kept.reload(index, layers[index], mix.of(index)),
            mix.simplest,
        )
    described = f"{scheme.describe()}, {algorithm.name}"
    return dataclasses.replace(model, layers=made, scheme=described, few_tokens=few_tokens)


def _nothing(place: str, _: Linear) -> Linear:
    return PlainLinear(torch.empty(0))


def check_plain(model: Model) -> None:
    """Check that nothing of a model is quantized yet.

    Raises: ConfigError if something is.
    """
    for layer in model.layers:
        _check_plain_layer(model, layer)


def _check_plain_layer(model: Model, layer: Layer) -> None:
    if not all(isinstance(linear, PlainLinear) for linear in layer.linears.values()):
        raise ConfigError(
            "is quantized already", where=model.name or "model",
            hint="quantize the original checkpoint",
        )  # fmt: skip


def quantize_layer(
    model: Model, index: int, layer: Layer, schemes: Mapping[str, Scheme | None],
    algorithm: Algorithm, sums: Mapping[str, Sequence[InputSums]] | None,
) -> tuple[Layer, Layer]:  # fmt: skip
    """Return a layer as it is rounded, equalized or not, and it quantized where it has schemes.

    `sums` are None for what looks at no text.

    Raises: as `quantize_layers`.
    """
    units = units_of(model, index)
    if sums is None:
        sums = {place: [InputSums(0, name=place)] * len(unit) for place, unit in units.items()}
    if algorithm.equalizes:
        layer, sums = equalized(layer, schemes, units, sums)

    def rounded(place: str, inner: Linear) -> Linear:
        scheme = schemes[scheme_place(place)]
        if scheme is None:
            return inner
        return round_units(inner, units[place], scheme, algorithm, sums[place])

    return layer, layer.with_linears(rounded)
