"""Quantized layers on disk, so that a run that was killed goes on behind those that were done."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from asterope.errors import OutputError
from asterope.llm.layers import Layer, Linear, PlainLinear
from asterope.llm.pieces import scheme_place
from asterope.native import write_atomically
from asterope.quant import QuantizedLinear, Scheme

__all__ = ["KeptLayers"]

_NORMS = ("attention_norm", "mlp_norm")
_KEY, _FEW_TOKENS = "made_from", "few_tokens"
_ROUTER, _QUERY_NORM = "router", "latent.q_norm"
_INPUTS = "input_scale"


class KeptLayers:
    """One file for each layer that is done, in a directory of its own.

    `made_from` says all that layers depend on: files that say something else are written anew.
    """

    def __init__(self, directory: Path, made_from: str) -> None:
        self.directory = directory
        self._made_from = made_from

    def load(self, index: int, plain: Layer, schemes: Mapping[str, Scheme | None]) -> Layer | None:
        """Return a layer that was kept, None if there is none; `plain` has what does not change."""
        path = self._path(index)
        try:
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get(_KEY) != self._made_from:
                    return None
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None

        def linear(place: str, _: Linear) -> Linear:
            own = {n.partition(".")[2]: t for n, t in found.items() if n.startswith(f"{place}.")}
            scheme = schemes[scheme_place(place)]
            if scheme is None:
                return PlainLinear(**own)
            inputs = own.pop(_INPUTS, None)
            scale = None if inputs is None else float(inputs)
            return QuantizedLinear(scheme=scheme, input_scale=scale, **own)

        router = plain.router
        if router is not None:
            assert isinstance(router.linear, PlainLinear)
            read = dataclasses.replace(router.linear, weight=found[f"{_ROUTER}.weight"])
            router = dataclasses.replace(router, linear=read)
        norms = {name: found[name] for name in _NORMS}
        made = dataclasses.replace(plain.with_linears(linear), router=router, **norms)
        if made.latent is None or _QUERY_NORM not in found:
            return made
        latent = dataclasses.replace(made.latent, q_norm=found[_QUERY_NORM])
        return dataclasses.replace(made, latent=latent)

    def reload(self, index: int, plain: Layer, schemes: Mapping[str, Scheme | None]) -> Layer:
        """Return a layer that was kept by this run; `plain` is as in `load`.

        Raises: OutputError if it is gone.
        """
        layer = self.load(index, plain, schemes)
        if layer is None:
            raise OutputError(
                "was changed by another process", where=str(self._path(index)),
                hint="start the command again: it goes on behind the layers that are done",
            )  # fmt: skip
        return layer

    def few_tokens(self, index: int) -> dict[str, int]:
        """Return what a layer that is there was kept with."""
        with safe_open(self._path(index), "pt") as file:
            found: dict[str, int] = json.loads(file.metadata().get(_FEW_TOKENS, "{}"))
        return found

    def keep(self, index: int, layer: Layer, few_tokens: Mapping[str, int]) -> None:
        """Write a layer, whole or not at all; `few_tokens` is as in `LayerInputs`.

        Raises: OutputError if it cannot be written.
        """
        tensors = {name: getattr(layer, name).contiguous() for name in _NORMS}

        def add(place: str, linear: Linear) -> Linear:
            for field, tensor in _tensors(linear).items():
                tensors[f"{place}.{field}"] = tensor.contiguous()
            return linear

        layer.with_linears(add)
        if layer.latent is not None and layer.latent.q_norm is not None:
            tensors[_QUERY_NORM] = layer.latent.q_norm.contiguous()
        if layer.router is not None:
            add(_ROUTER, layer.router.linear)
        path = self._path(index)
        metadata = {_KEY: self._made_from, _FEW_TOKENS: json.dumps(few_tokens)}
        try:
            write_atomically(path, save(tensors, metadata))
        except OSError as error:
            raise OutputError(f"cannot write: {error.strerror}", where=str(path)) from None

    @staticmethod
    def remove(directory: Path) -> None:
        """Delete the layers that are kept in a directory, and it, if nothing else is there."""
        for path in directory.glob("*layer-*.safetensors*"):  # half-written ones too
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            directory.rmdir()

    def _path(self, index: int) -> Path:
        return self.directory / f"layer-{index:05}.safetensors"


def _tensors(linear: Linear) -> dict[str, torch.Tensor]:
    """Return the tensors of a linear layer by the names of their fields."""
    if isinstance(linear, QuantizedLinear):
        scale = linear.input_scale
        inputs = {} if scale is None else {_INPUTS: torch.tensor(scale, dtype=torch.float64)}
        return linear.tensors | inputs
    assert isinstance(linear, PlainLinear)
    bias = {} if linear.bias is None else {"bias": linear.bias}
    return {"weight": linear.weight, **bias}
