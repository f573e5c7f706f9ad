"""Choose the instruction set; products of bf16 are trusted after they have shown the right bits."""

from __future__ import annotations

import functools

import numpy as np

from asterope.host.executable import HostKernel
from asterope.ir import Kernel, parse_kernel
from asterope.native import ISAS, Isa, available_isas, best_isa

__all__ = ["host_isa"]

_CHECK = """
kernel @check(%a: ptr<bf16>, %b: ptr<bf16>, %c: ptr<fp32>) {
  %rows = iota() {start = 0} : i32[32]
  %depth = iota() {start = 0} : i32[64]
  %wide = const() {value = 64} : i32[32]
  %tall = const() {value = 32} : i32[64]
  %flat = const() {value = 32} : i32[32]
  %a_rows = mul(%rows, %wide) : i32[32]
  %b_rows = mul(%depth, %tall) : i32[64]
  %c_rows = mul(%rows, %flat) : i32[32]
  %x = load_tile(%a, %a_rows, %depth) {} : bf16[32,64]
  %y = load_tile(%b, %b_rows, %rows) {} : bf16[64,32]
  %z = load_tile(%c, %c_rows, %rows) {} : fp32[32,32]
  %d = dot(%x, %y, %z) {order = "pairs"} : fp32[32,32]
  store_tile(%d, %c, %c_rows, %rows) {}
  return()
}
"""


@functools.cache
def _check_kernel() -> Kernel:
    return parse_kernel(_CHECK)


def _product(isa: Isa) -> bytes:
    """Multiply fixed random matrices; return the bytes of the result."""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(32 * 64).astype(np.float32) for _ in range(2))
    codes = [(x.view(np.uint32) >> 16).astype(np.uint16) for x in (a, b)]
    c = random.standard_normal(32 * 32).astype(np.float32)
    addresses = [codes[0].ctypes.data, codes[1].ctypes.data, c.ctypes.data]
    HostKernel(_check_kernel(), isa).launch((1, 1, 1), addresses)
    return c.tobytes()


@functools.cache
def _is_exact(name: str) -> bool:
    """Whether a level's products of bf16 have the bits of those that are widened first."""
    return not ISAS[name].multiplies_bf16 or _product(ISAS[name]) == _product(ISAS["avx512"])


def host_isa() -> Isa:
    """Return what to compile for: the best there is whose instructions sum as their manual says."""
    best = best_isa()
    names = available_isas()
    return next(ISAS[name] for name in names[names.index(best.name) :] if _is_exact(name))
