"""Tile IR to native code: values on this CPU, and the instruction streams of the time reading."""

from __future__ import annotations

from asterope.host.emitter import Emitter, TimeCode
from asterope.host.executable import HostKernel, write_llvm
from asterope.host.instruction_set import host_isa

__all__ = ["Emitter", "HostKernel", "TimeCode", "host_isa", "write_llvm"]
