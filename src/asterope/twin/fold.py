"""Layers that launch the same kernels on the same shapes: one of them stands for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch

from asterope.llm import Model
from asterope.runtime import TimedLaunch, Timeline

__all__ = ["Unfolding", "fold"]


@dataclass(slots=True, eq=False)
class Unfolding:
    """Repeats on a timeline, between the layers that run, those that they stand for.

    `order` says of each layer of the whole model which of the running ones stands for it.
    """

    order: tuple[int, ...]
    timeline: Timeline
    _run: list[list[TimedLaunch]] = field(default_factory=list)
    _start: int = -1
    _num_noted: int = 0

    def between_layers(self) -> None:
        """Take note that a layer begins to run, or that the last one is done."""
        launches = self.timeline.launches
        if self._start >= 0:
            self._run.append(launches[self._start :])
            self._num_noted += 1
        while self._num_noted < len(self.order) and self.order[self._num_noted] < len(self._run):
            self.timeline.repeat(self._run[self.order[self._num_noted]])
            self._num_noted += 1
        self._start = len(launches)


def fold(model: Model) -> tuple[Model, tuple[int, ...]]:
    """Return a model of the layers that differ in what they launch, and which each layer is.

    Where nothing is computed that depends on shapes and types of the weights, on the window of
    attention, and on whether a layer is the first, to which no residual comes. Two layers of some
    unknown kind are not alike.
    """
    windows = model.config.windows
    forms = {id(layer): _form(layer) for layer in {id(x): x for x in model.layers}.values()}
    stands: dict[Hashable, int] = {}
    kept, order = list[int](), list[int]()
    for i, layer in enumerate(model.layers):
        form = (i == 0, windows[i], forms[id(layer)])
        if form not in stands:
            stands[form] = len(kept)
            kept.append(i)
        order.append(stands[form])
    config = dataclasses.replace(
        model.config, num_layers=len(kept), windows=tuple(windows[i] for i in kept)
    )
    layers = [model.layers[i] for i in kept]
    return dataclasses.replace(model, config=config, layers=layers), tuple(order)


def _form(value: Any) -> Hashable:
    """Return what a part of a layer is but for its numbers; equal forms launch the same kernels."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype
    if dataclasses.is_dataclass(value):
        parts = (_form(getattr(value, f.name)) for f in dataclasses.fields(value))
        return (type(value), *parts)
    return value if isinstance(value, Hashable) else id(value)
