"""Move what rounding a weight adds to the mean of a layer's outputs into its bias."""

from __future__ import annotations

import dataclasses

import torch

from asterope.quant.inputs import InputSums
from asterope.quant.linear import QuantizedLinear

__all__ = ["with_corrected_bias"]


def with_corrected_bias(
    layer: QuantizedLinear, weight: torch.Tensor, inputs: InputSums
) -> QuantizedLinear:
    """Return a layer whose bias makes up for the mean error of its weight on a sample of inputs.

    One without a bias stays as it is, and so does one that rounds its inputs: it lost by it where
    that was measured.

    Shapes: weight [N, K], what the layer rounds.
    Source: Nagel et al., Data-Free Quantization, arXiv:1906.04721, section 4.2 (there with a mean
    from the norm before).
    """
    if layer.bias is None or layer.scheme.activation_format is not None or not len(inputs.sample):
        return layer
    mean = inputs.sample.mean(0)
    wrong = (weight.float() - layer.dequantize()) @ mean
    return dataclasses.replace(layer, bias=(layer.bias.float() + wrong).to(layer.bias.dtype))
