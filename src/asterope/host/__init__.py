"""Tile IR to native code: values, on this CPU."""

from __future__ import annotations

from asterope.host.executable import HostKernel, write_llvm

__all__ = ["HostKernel", "write_llvm"]
