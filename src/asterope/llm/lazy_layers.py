"""Layers that are made when they are asked for, so that a model need not be held whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from asterope.llm.layers import Layer
from asterope.quant import Plan

__all__ = ["LazyLayers"]


class LazyLayers(Sequence[Layer]):
    """A model's layers, each made anew whenever it is asked for: only who asks holds it.

    `plan` is how they are quantized, None if they are not.
    """

    def __init__(self, count: int, make: Callable[[int], Layer], plan: Plan | None) -> None:
        self.plan = plan
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> list[Layer]: ...
    def __getitem__(self, index: int | slice) -> Layer | list[Layer]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        return self._make(range(self._count)[index])

    def changed(self, change: Callable[[int, Layer], Layer]) -> LazyLayers:
        """Return layers that are changed as they are made."""
        return LazyLayers(self._count, lambda index: change(index, self[index]), self.plan)
