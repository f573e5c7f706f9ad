"""Triton kernels: the `triton.backends` plug-in, and TTIR to tile IR."""

from __future__ import annotations
