"""What is said of parts of a checkpoint that are read and not used."""

from __future__ import annotations

__all__ = ["BOUNDED_INPUTS", "KV_CACHE"]

BOUNDED_INPUTS = (
    "The checkpoint's bound on scales of inputs is not used: large inputs are not clipped."
)
KV_CACHE = "The checkpoint asks for a quantized KV cache; keys and values are kept as computed."
