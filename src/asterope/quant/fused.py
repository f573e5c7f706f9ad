"""Layers that read the same inputs as one, and one as several."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch

from asterope.errors import ShapeError
from asterope.quant.linear import QuantizedLinear

__all__ = ["concatenate", "split", "stack"]


def concatenate(parts: Sequence[QuantizedLinear]) -> QuantizedLinear:
    """Return one layer whose outputs are those of the parts, one after another.

    Of static scales of inputs the largest is taken, which clips nothing that another would not. The
    parts of a branch share its first factor.

    Raises: ShapeError if the parts differ in K, scheme, type, in the first factor of a branch, or
    in having a bias or static inputs.
    """
    _check_alike(parts)
    first = parts[0]
    for i, part in enumerate(parts):
        if first.lora_a is not None and not torch.equal(part.tensors["lora_a"], first.lora_a):
            raise ShapeError("lora_a is not that of the first", where=f"parts[{i}]")
    joined = _joined(parts)
    return joined if first.lora_a is None else dataclasses.replace(joined, lora_a=first.lora_a)


def stack(experts: Sequence[QuantizedLinear]) -> QuantizedLinear:
    """Return one layer of several experts, one below another, each with a branch of its own.

    Raises: ShapeError if they differ in shape, or in what `concatenate` asks for.
    """
    _check_alike(experts)
    for i, expert in enumerate(experts):
        if expert.out_features != experts[0].out_features:
            raise ShapeError(
                f"out_features is {expert.out_features}, that of the first "
                f"{experts[0].out_features}", where=f"experts[{i}]",
            )  # fmt: skip
    return _joined(experts)


def _check_alike(parts: Sequence[QuantizedLinear]) -> None:
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


def _joined(parts: Sequence[QuantizedLinear]) -> QuantizedLinear:
    first = parts[0]
    joined = {name: torch.cat([part.tensors[name] for part in parts]) for name in first.tensors}
    inputs = [part.input_scale for part in parts if part.input_scale is not None]
    return QuantizedLinear(scheme=first.scheme, input_scale=max(inputs, default=None), **joined)


def split(whole: QuantizedLinear, sizes: Sequence[int]) -> tuple[QuantizedLinear, ...]:
    """Return layers with so many outputs each, on the memory of the whole: undo `concatenate`.

    Of experts each gets the first factor of the branch of the one that its outputs are of.

    Raises: ShapeError if the sizes do not add up.
    """
    if sum(sizes) != whole.out_features or min(sizes, default=0) < 1:
        raise ShapeError(
            f"sizes {list(sizes)} do not add up to {whole.out_features} outputs", where="sizes"
        )
    cuts = {
        name: torch.split(tensor, list(sizes))
        for name, tensor in whole.tensors.items()
        if name != "lora_a"
    }
    if whole.lora_a is not None:
        firsts = whole.lora_a.chunk(whole.num_branches)
        starts = itertools.accumulate(sizes, initial=0)
        cuts["lora_a"] = tuple(
            firsts[start * len(firsts) // whole.out_features]
            for start, _ in zip(starts, sizes, strict=False)
        )
    return tuple(
        QuantizedLinear(
            scheme=whole.scheme,
            input_scale=whole.input_scale,
            **{name: parts[i] for name, parts in cuts.items()},
        )
        for i in range(len(sizes))
    )
