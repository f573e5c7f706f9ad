"""What a kernel says while it runs: prints and assertions."""

from __future__ import annotations

from asterope.ir import Builder
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RULES"]


def _print(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(
        op, b, "print",
        prefix=op.attrs["prefix"],
        hex=op.attrs["hex"],
        signed=tuple(bool(s) for s in op.attrs["isSigned"]),
        threads=cv.options.get("print_threads", 1),
    )  # fmt: skip


def _assert(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "assert", message=op.attrs["message"])


RULES: dict[str, Rule] = {"tt.print": _print, "tt.assert": _assert}
