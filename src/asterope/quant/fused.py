"""Layers that read the same inputs as one, and one as several."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from asterope.errors import ShapeError
from asterope.quant.linear import QuantizedLinear

__all__ = ["concatenate", "split"]


def concatenate(parts: Sequence[QuantizedLinear]) -> QuantizedLinear:
    """Return one layer whose outputs are those of the parts, one after another.

    Of static scales of inputs the largest is taken, which clips nothing that another would not. The
    parts of a branch share its first factor.

    Raises: ShapeError if the parts differ in K, scheme, type, in the first factor of a branch, or
    in having a bias or static inputs.
    """
    if not parts:
        raise ShapeError("there is no layer to concatenate", where="parts")
    first = parts[0]
    for i, part in enumerate(parts):
        for what, mine, other in (
            ("in_features", part.in_features, first.in_features),
            ("scheme", part.scheme, first.scheme),
            ("dtype", part.codes.dtype, first.codes.dtype),
            ("bias", part.bias is not None, first.bias is not None),
            ("static inputs", part.input_scale is not None, first.input_scale is not None),
        ):
            if mine != other:
                raise ShapeError(
                    f"{what} is {mine}, that of the first {other}", where=f"parts[{i}]"
                )
        if first.lora_a is not None and not torch.equal(part.tensors["lora_a"], first.lora_a):
            raise ShapeError("lora_a is not that of the first", where=f"parts[{i}]")
    joined = {name: torch.cat([part.tensors[name] for part in parts]) for name in first.tensors}
    if first.lora_a is not None:
        joined["lora_a"] = first.lora_a
    inputs = [part.input_scale for part in parts if part.input_scale is not None]
    return QuantizedLinear(scheme=first.scheme, input_scale=max(inputs, default=None), **joined)


def split(whole: QuantizedLinear, sizes: Sequence[int]) -> tuple[QuantizedLinear, ...]:
    """Return layers with so many outputs each, on the memory of the whole: undo `concatenate`.

    Raises: ShapeError if the sizes do not add up.
    """
    if sum(sizes) != whole.out_features or min(sizes, default=0) < 1:
        raise ShapeError(
            f"sizes {list(sizes)} do not add up to {whole.out_features} outputs", where="sizes"
        )
    cuts = {
        name: [tensor] * len(sizes) if name == "lora_a" else torch.split(tensor, list(sizes))
        for name, tensor in whole.tensors.items()
    }
    return tuple(
        QuantizedLinear(
            scheme=whole.scheme,
            input_scale=whole.input_scale,
            **{name: parts[i] for name, parts in cuts.items()},
        )
        for i in range(len(sizes))
    )
