"""The error for what is not supported: the op, the line of the user's kernel, a way round."""

from __future__ import annotations

from asterope.errors import UnsupportedError
from asterope.triton_backend.ttir import MlirOp

__all__ = ["unsupported"]


def unsupported(op: MlirOp, what: str, hint: str = "") -> UnsupportedError:
    """Make the error for an op."""
    return UnsupportedError(
        what,
        where=op.loc or "triton kernel",
        hint=hint or "see docs/triton.md for what is supported",
    )
