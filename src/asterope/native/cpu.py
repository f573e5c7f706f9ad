"""The instruction sets host code is compiled for, and which of them this CPU has."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
import time
from dataclasses import dataclass

import llvmlite.binding as llvm

from asterope.errors import ConfigError
from asterope.native.settings import setting

__all__ = ["ISAS", "Isa", "available_isas", "best_isa", "isa_named", "num_cores"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Isa:
    """One instruction-set level: what LLVM compiles for and how dot products are blocked.

    `dot_rows` x `dot_vectors` vectors of 16 floats are the accumulators a micro-kernel keeps in
    registers. Every level gives the same bits; only speed differs. `has_wide_masks` is AVX-512's
    masks for elements of any width, `has_mask_moves` AVX2's for 32 and 64 bits, `has_bf16` the
    rounding to bf16 of AVX-512, `has_byte_tables` its look-up of bytes in tables of 128, which
    a level has where this CPU does. Products of bf16 are multiplied as they are by AMX's tile
    registers, `has_tiles`, or by AVX-512's VDPBF16PS, `has_bf16_dot`. `emulates_products` replaces
    these instructions by functions that do the same, to test their use on a CPU without them.
    """

    name: str
    llvm_cpu: str
    llvm_features: str
    needs: tuple[str, ...]
    dot_rows: int
    dot_vectors: int
    has_fma: bool
    has_half: bool
    has_wide_masks: bool
    has_mask_moves: bool = False
    has_bf16: bool = False
    has_byte_tables: bool = False
    has_tiles: bool = False
    has_bf16_dot: bool = False
    emulates_products: bool = False

    @property
    def multiplies_bf16(self) -> bool:
        """Whether products of bf16 are multiplied without widening them."""
        return self.has_tiles or self.has_bf16_dot


_HAS_BYTE_TABLES = bool(llvm.get_host_cpu_features().get("avx512vbmi", False))
_V4 = "-prefer-256-bit" + (",+avx512vbmi" if _HAS_BYTE_TABLES else "")
_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "fma", "bmi2", "f16c")

ISAS: dict[str, Isa] = {
    isa.name: isa
    for isa in (
        Isa(
            name="amx", llvm_cpu="x86-64-v4",
            llvm_features=_V4 + ",+amx-tile,+amx-bf16,+avx512bf16",
            needs=(*_AVX512, "amx-tile", "amx-bf16", "avx512bf16"), dot_rows=4, dot_vectors=2,
            has_fma=True, has_half=True, has_wide_masks=True, has_bf16=True,
            has_byte_tables=_HAS_BYTE_TABLES, has_tiles=True,
        ),
        Isa(
            name="avx512bf16", llvm_cpu="x86-64-v4", llvm_features=_V4 + ",+avx512bf16",
            needs=(*_AVX512, "avx512bf16"), dot_rows=4, dot_vectors=2,
            has_fma=True, has_half=True, has_wide_masks=True, has_bf16=True,
            has_byte_tables=_HAS_BYTE_TABLES, has_bf16_dot=True,
        ),
        Isa(
            name="avx512", llvm_cpu="x86-64-v4", llvm_features=_V4,
            needs=_AVX512, dot_rows=4, dot_vectors=2,
            has_fma=True, has_half=True, has_wide_masks=True,
            has_byte_tables=_HAS_BYTE_TABLES,
        ),
        Isa(
            name="avx2", llvm_cpu="x86-64-v3", llvm_features="",
            needs=("avx2", "fma", "bmi2", "f16c"), dot_rows=3, dot_vectors=1,
            has_fma=True, has_half=True, has_wide_masks=False, has_mask_moves=True,
        ),
        Isa(
            name="portable", llvm_cpu="", llvm_features="",
            needs=(), dot_rows=2, dot_vectors=1,
            has_fma=False, has_half=False, has_wide_masks=False,
        ),
    )
}  # fmt: skip

_ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA, _SYS_ARCH_PRCTL = 0x1023, 18, 158


def _may_use_tiles() -> bool:
    """Ask the kernel for the AMX tile registers; Linux hands them out per process."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0)


@functools.cache
def available_isas() -> tuple[str, ...]:
    """Name the levels this CPU can run, best first; `portable` is always among them."""
    features = llvm.get_host_cpu_features()
    names = []
    for isa in ISAS.values():
        has_all = all(features.get(need, False) for need in isa.needs)
        if has_all and (not isa.has_tiles or _may_use_tiles()):
            names.append(isa.name)
    return tuple(names)


def isa_named(name: str) -> Isa:
    """Look a level up by name.

    Raises: ConfigError if there is no such level or this CPU lacks it.
    """
    if name not in ISAS:
        raise ConfigError(
            f"there is no instruction set {name!r}",
            where="ASTEROPE_ISA",
            hint=f"use one of {', '.join(ISAS)}",
        )
    if name not in available_isas():
        raise ConfigError(
            f"this CPU does not have {name}",
            where="ASTEROPE_ISA",
            hint=f"it has {', '.join(available_isas())}",
        )
    return ISAS[name]


def best_isa() -> Isa:
    """Return the level to compile for: `ASTEROPE_ISA` where set, else the best this CPU has."""
    return _isa_asked_for(setting("ASTEROPE_ISA"))


@functools.cache
def _isa_asked_for(name: str) -> Isa:
    return isa_named(name or available_isas()[0])


_ASKED_EVERY_S = 1.0
_usable = (0, 0.0)


def _usable_cpus() -> int:
    """Count the CPUs we may run on, asked for once a second: the answer takes 0.4 us."""
    global _usable  # noqa: PLW0603  the last answer, and until when it holds
    count, until = _usable
    now = time.monotonic()
    if now >= until:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        _usable = count, now + _ASKED_EVERY_S
    return count


def num_cores() -> int:
    """Return how many threads to use: `ASTEROPE_NUM_THREADS`, else the CPUs we may run on."""
    text = setting("ASTEROPE_NUM_THREADS")
    if not text:
        return _usable_cpus()
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(
            f"{text!r} is not a number of threads",
            where="ASTEROPE_NUM_THREADS",
            hint="use 1 or more",
        )
    return int(text)
