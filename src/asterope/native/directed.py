"""Arithmetic that is rounded up, down or to zero, by turning the processor's rounding mode.

Each operation becomes a function of its own, called with the mode set back at its end: no code
around it ever runs in another mode than to nearest.
"""

from __future__ import annotations

from asterope.native.build import Val
from asterope.native.types import type_text

__all__ = ["apply_directed"]

# As `llvm.set.rounding` numbers them.
_MODES = {"toward_zero": 0, "up": 2, "down": 3}
_NEAREST_EVEN = 1


def apply_directed(of: str, rounding: str, *args: Val) -> Val:
    """Emit fadd, fsub, fmul, fdiv, fma or sqrt with its result rounded as `rounding` says."""
    x = args[0]
    module = x.fn.module
    suffix = f"v{x.lanes}{x.kind}" if x.lanes else x.kind
    name = f"{of}_{rounding}_{suffix}"
    if not module.has(name):
        kind = type_text(x.kind, x.lanes)
        operation = f"llvm.experimental.constrained.{of}.{suffix}"
        module.declare(operation, kind, [*[kind] * len(args), "metadata", "metadata"])
        module.declare("llvm.set.rounding", "void", ["i32"])
        module.define(name, _function(name, operation, _MODES[rounding], kind, len(args)))
    return x.fn.call(name, args, x.kind, x.lanes)


def _function(name: str, operation: str, mode: int, kind: str, operands: int) -> str:
    given = ", ".join(f"{kind} %a{i}" for i in range(operands))
    how = 'metadata !"round.dynamic", metadata !"fpexcept.strict"'
    return f"""define internal {kind} @{name}({given}) noinline nounwind strictfp {{
  call void @llvm.set.rounding(i32 {mode}) strictfp
  %result = call {kind} @{operation}({given}, {how}) strictfp
  call void @llvm.set.rounding(i32 {_NEAREST_EVEN}) strictfp
  ret {kind} %result
}}"""
