"""torch's operators on a CPU, each computed in float64 and rounded once.

References are made of torch's operators. In half precision some of those on a CPU add up in half
precision too, and are further from the truth than the kernel under test. A test that fails by its
assertion is run again in this mode, from the same seeds, and passes if it then passes. Nothing here
is seen by kernels: the mode changes what torch computes, and no tolerance.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["EXACT_IS_SLOWER", "ExactTorch", "same_seeds"]

# How many times longer a test may take within the mode.
EXACT_IS_SLOWER = 3

_LOW = (torch.float16, torch.bfloat16, torch.float32)
# Operators of which the result depends on the format as such.
_AS_THEY_ARE = frozenset({
    "aten::_to_copy", "aten::clone", "aten::copy_", "aten::detach", "aten::empty_like",
    "aten::frexp", "aten::nextafter", "aten::new_empty", "aten::resize_", "aten::set_",
})  # fmt: skip


def _is_low(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in _LOW and value.device.type == "cpu"


def _is_plain(func: Any) -> bool:
    """Whether an operator computes: is no view, and draws no random numbers."""
    schema = func._schema
    is_view = any(r.alias_info and not r.alias_info.is_write for r in schema.returns)
    is_random = torch.Tag.nondeterministic_seeded in func.tags
    return func.namespace == "aten" and not (
        is_view or is_random or schema.name in _AS_THEY_ARE or "random" in schema.name
    )


class ExactTorch(TorchDispatchMode):
    """Within it, operators on fp16, bf16 and fp32 are computed in float64 and rounded once.

    What an operator keeps for its gradient, such as the mean of a norm, is not rounded.
    """

    def __init__(self) -> None:
        super().__init__()
        # By address; the rounded tensor is kept so that nothing else comes to lie there.
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def _widen(self, value: Any) -> Any:
        """Return a float64 copy of a tensor, and float64 for the name of a narrower format."""
        if not _is_low(value):
            return torch.float64 if isinstance(value, torch.dtype) and value in _LOW else value
        low, wide = self._kept.get(value.data_ptr(), (None, None))
        is_kept = low is not None and (low.shape, low.dtype) == (value.shape, value.dtype)
        return wide if is_kept else value.to(torch.float64)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Compute an operator twice: for its effects and formats, and for its values."""
        kwargs = kwargs or {}
        given, _ = tree_flatten((args, kwargs))
        if not _is_plain(func) or not any(map(_is_low, given)):
            return func(*args, **kwargs)
        wide_args, wide_kwargs = tree_map(self._widen, (args, kwargs))
        try:
            wide = func(*wide_args, **wide_kwargs)
        except (RuntimeError, NotImplementedError):  # an operator that float64 does not have
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        # Operands written in place, then results: a result may be an operand.
        written, _ = tree_flatten((args, kwargs))
        values, _ = tree_flatten((wide_args, wide_kwargs))
        if func._schema.is_mutable:
            _round_into(written, values)
        results, wide_results = tree_flatten(result)[0], tree_flatten(wide)[0]
        _round_into(results, wide_results)
        if isinstance(result, tuple):
            for low, exact in zip(results[1:], wide_results[1:], strict=True):
                if _is_low(low) and isinstance(exact, torch.Tensor) and low.shape == exact.shape:
                    self._kept[low.data_ptr()] = low, exact
        return result


def _round_into(targets: list[Any], values: list[Any]) -> None:
    for target, value in zip(targets, values, strict=True):
        if _is_low(target) and isinstance(value, torch.Tensor) and target.shape == value.shape:
            target.copy_(value)


def same_seeds() -> Callable[[], None]:
    """Return what puts all random number generators back to where they are now."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    def restore() -> None:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002  what the tests draw from
        torch.set_rng_state(states[2])

    return restore
