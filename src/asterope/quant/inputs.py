"""What a linear layer's inputs are like: the sums that calibration takes over them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from asterope.errors import CheckpointError
from asterope.quant.rotation import rotate_products

__all__ = ["InputSums"]


_SAMPLED, _SAMPLED_AT_ONCE = 512, 128
_COLUMNS = 256  # of a sum are added at once, for the memory of a product in float32


class InputSums:
    """The sum of x^T x over the inputs of a layer, in float64, and some of them.

    Half of the sum is the curvature of the layer's squared error in each row of the weight. It
    takes 8 K^2 bytes.

    Shapes: products [K, K]; sample [at most 512, K]; largest [K], the largest magnitudes.
    """

    def __init__(self, in_features: int, *, name: str) -> None:
        self.name = name
        self.num_tokens = 0
        self.products = torch.zeros(in_features, in_features, dtype=torch.float64)
        self.sample = torch.empty(0, in_features)
        self.largest = torch.zeros(in_features)

    def add(self, x: torch.Tensor) -> None:
        """Add inputs. Shapes: x [tokens, K].

        Raises: CheckpointError if one of them is not finite, naming the layer.
        """
        if not len(x):
            return
        x = x.float()
        low, high = torch.aminmax(x, dim=0)
        largest = torch.maximum(-low, high)
        if not bool(torch.isfinite(largest).all()):
            raise CheckpointError(
                "its inputs are not finite on the calibration text", where=self.name,
                hint="compute in another type: --dtype float32 or bfloat16",
            )  # fmt: skip
        for start in range(0, x.shape[1], _COLUMNS):
            columns = slice(start, start + _COLUMNS)
            self.products[columns] += x[:, columns].T @ x
        self.num_tokens += len(x)
        self.largest = torch.maximum(self.largest, largest)
        if len(self.sample) < _SAMPLED:
            stride = -(-len(x) // _SAMPLED_AT_ONCE)
            self.sample = torch.cat([self.sample, x[::stride]])[:_SAMPLED]

    @classmethod
    def total(cls, parts: Sequence[InputSums]) -> InputSums:
        """Return the sums over the inputs of several, under the name of the first."""
        made = cls(len(parts[0].products), name=parts[0].name)
        made.num_tokens = sum(part.num_tokens for part in parts)
        samples = []
        for part in parts:
            made.products += part.products
            made.largest = torch.maximum(made.largest, part.largest)
            # Of each as much of the sample as it has of the tokens.
            share = -(-_SAMPLED * part.num_tokens // max(1, made.num_tokens))
            samples.append(part.sample[: min(share, len(part.sample))])
        made.sample = torch.cat(samples)[:_SAMPLED]
        return made

    def divided(self, scale: torch.Tensor) -> InputSums:
        """Return what the sums are once each input is divided by its scale. Shapes: scale [K]."""
        made = InputSums(len(scale), name=self.name)
        made.num_tokens = self.num_tokens
        made.products = self.products / torch.outer(scale, scale).double()
        made.sample = self.sample / scale
        made.largest = self.largest / scale
        return made

    def rotated(self, size: int) -> InputSums:
        """Return what the sums are once inputs are rotated; what is no sum is left out."""
        made = InputSums(len(self.products), name=self.name)
        made.num_tokens = self.num_tokens
        made.products = rotate_products(self.products, size)
        return made

    @property
    def importance(self) -> torch.Tensor:
        """The mean square of each input. Shapes: [K] float32."""
        return (self.products.diagonal() / max(1, self.num_tokens)).float()
