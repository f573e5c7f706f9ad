"""What the functions of NVIDIA's libdevice mean, so that kernels that name them run."""

from __future__ import annotations

from asterope.triton_backend.convert.libdevice.table import MEANINGS
from asterope.triton_backend.convert.libdevice.terms import Term

__all__ = ["MEANINGS", "Term"]
