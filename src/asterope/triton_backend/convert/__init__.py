"""TTIR to tile IR, op by op. No kernel is recognised: each op becomes what it means."""

from __future__ import annotations

from typing import Any

from asterope.ir import Kernel, verify
from asterope.triton_backend.convert import (
    atomics,
    block_pointers,
    by_element,
    control,
    descriptors,
    elementwise,
    memory,
    products,
    reports,
    shapes,
)
from asterope.triton_backend.convert.branches import BRANCHES
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.convert.products import TF32, TF32_UNASKED
from asterope.triton_backend.ttir import MlirOp

__all__ = ["SUPPORTED_OPS", "TF32", "TF32_UNASKED", "convert_module"]

_RULES: dict[str, Rule] = {
    **atomics.RULES,
    **block_pointers.RULES,
    **by_element.RULES,
    **control.RULES,
    **descriptors.RULES,
    **elementwise.RULES,
    **memory.RULES,
    **products.RULES,
    **reports.RULES,
    **shapes.RULES,
}

SUPPORTED_OPS = tuple(sorted({*_RULES, *BRANCHES}))


def convert_module(
    module: MlirOp, attrs: dict[str, Any] | None = None, options: dict[str, Any] | None = None
) -> Kernel:
    """Convert the kernel of a Triton module to tile IR, verified.

    `attrs` become the kernel's; `options` are what rules ask of the launch: `print_threads`.

    Raises: UnsupportedError naming the op, the line of the user's kernel, and a way round.
    """
    functions = {
        str(op.attrs["sym_name"]): op for op in module.regions[0][0].ops if op.name == "tt.func"
    }
    public = [f for f in functions.values() if f.attrs.get("sym_visibility") == "public"]
    asked = {**(options or {}), TF32_UNASKED: TF32_UNASKED in module.attrs}
    kernel = Converter(_RULES, functions, asked).function(public[0], dict(attrs or {}))
    verify(kernel)
    return kernel
