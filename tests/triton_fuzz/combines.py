"""Functions that kernels call, and combine elements by; they stand on top of every module.

All that combine are associative. `COMMUTATIVE` ones may also be reduced by; others only scan.
"""

from __future__ import annotations

__all__ = ["COMMUTATIVE", "HEADER", "ORDERED"]

HEADER = """
@triton.jit
def product(a, b):
    return a * b


@triton.jit
def either(a, b):
    return a | b


@triton.jit
def xnor(a, b):
    return ~(a ^ b)


@triton.jit
def widest(low_a, high_a, low_b, high_b):
    return tl.minimum(low_a, low_b), tl.maximum(high_a, high_b)


@triton.jit
def peak(value_a, count_a, value_b, count_b):
    value = tl.maximum(value_a, value_b)
    count = tl.where(value_a == value, count_a, 0) + tl.where(value_b == value, count_b, 0)
    return value, count


@triton.jit
def last(a, b):
    return b


@triton.jit
def affine(scale_a, shift_a, scale_b, shift_b):
    return scale_a * scale_b, shift_a * scale_b + shift_b


@triton.jit
def turned(x, flag):
    if flag:
        return x + x
    return -x


@triton.jit(noinline=True)
def repeated(x, y, times):
    for _ in range(times):
        x = x * y + y
    return x
"""

# By name: how many values are combined with as many.
COMMUTATIVE = {"product": 1, "either": 1, "xnor": 1, "widest": 2, "peak": 2}
ORDERED = {**COMMUTATIVE, "last": 1, "affine": 2}
