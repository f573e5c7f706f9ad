"""Triton's language as kernels see it here: the same names, but fp32 products are fp32 by default.

Triton's own default is "tf32" wherever a back end allows that precision at all, and its IR does not
tell a default from a wish. Triton looks names of `triton.language` up in this module instead.
"""

from __future__ import annotations

from typing import Any

import triton.language as tl
from triton import knobs
from triton.language.core import builtin

__all__ = ["dot"]


@builtin  # type: ignore[untyped-decorator]  # Triton ships no types
def dot(
    input: Any,  # noqa: A002  Triton's name
    other: Any,
    acc: Any = None,
    input_precision: Any = None,
    allow_tf32: Any = None,
    max_num_imprecise_acc: Any = None,
    out_dtype: Any = tl.float32,
    _semantic: Any = None,
) -> Any:
    """Return `triton.language.dot`, where no precision is asked for at the back end's default."""
    if input_precision is None and allow_tf32 is None:
        options = _semantic.builder.options
        input_precision = knobs.language.fp32_default or options.default_dot_input_precision
    return tl.dot(
        input, other, acc, input_precision, allow_tf32, max_num_imprecise_acc, out_dtype,
        _semantic=_semantic,
    )  # fmt: skip


def __getattr__(name: str) -> Any:
    return getattr(tl, name)
