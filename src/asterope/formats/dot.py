"""Dot products with their order and width of accumulation as part of the type.

Formats fix the products; the sum depends on who adds what to what, and on how many bits are kept.
A `DotRule` says both, so that two implementations of one rule agree in every bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from asterope.errors import FormatError, ShapeError
from asterope.formats.element import as_float32
from asterope.formats.fma import fma32

__all__ = ["DOT_RULES", "DotRule", "dot", "dot_rule"]

Float32s = npt.NDArray[np.float32]
Order = Literal["sequential", "pairs", "aligned"]

_ACCUMULATOR_MANTISSA_BITS = {"fp32": 23, "e8m13": 13}
_MIN_EXPONENT = -126


@dataclass(frozen=True, kw_only=True, slots=True)
class DotRule:
    """Say in which order and width a dot product is accumulated.

    - `sequential`: acc = fma(a_k, b_k, acc), k ascending. `chunk` has no meaning.
    - `pairs`: for each chunk of k, one chain of fma over its even k and one over its odd k, both
      from +0; then acc = acc + (even + odd). The order of the AMX instruction TDPBF16PS at
      chunk = 32, but with subnormals kept, where AMX flushes them.
    - `aligned`: for each chunk of k, the exact products and the accumulator are aligned to the
      largest exponent among them, truncated toward zero to `fraction_bits` fractional bits,
      summed exactly, and truncated toward zero to the accumulator's format. What NVIDIA tensor
      cores do. The exponent of a product is the sum of the operands' exponents, and that of a
      subnormal operand is `operand_emin`.

    `accumulate` is the accumulator's format; fp32 rounds to nearest even except when aligned.
    `promote_every` products, an aligned accumulator is added to a float32 one and restarted.

    Source: Intel SDM, TDPBF16PS; "MMA-Sim: Bit-Accurate Reference Model of Tensor Cores and Matrix
    Cores", arXiv 2511.10909, and microsoft/MMA-Sim c785138.
    """

    order: Order
    chunk: int = 32
    accumulate: Literal["fp32", "e8m13"] = "fp32"
    fraction_bits: int | None = None
    operand_emin: int = _MIN_EXPONENT
    promote_every: int | None = None

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise FormatError(f"there is no dot order named {self.order!r}", where="order")
        if self.chunk < 1:
            raise FormatError(f"a chunk of {self.chunk} products is empty", where="chunk")
        if self.accumulate not in _ACCUMULATOR_MANTISSA_BITS:
            raise FormatError(f"no accumulator format {self.accumulate!r}", where="accumulate")
        if (self.order == "aligned") != (self.fraction_bits is not None):
            raise FormatError(
                "the aligned order needs fraction_bits, the others have none", where="fraction_bits"
            )
        if self.order != "aligned" and (self.accumulate != "fp32" or self.promote_every):
            raise FormatError("only the aligned order has these options", where=self.order)
        if self.promote_every is not None and (
            self.promote_every < 1 or self.promote_every % self.chunk
        ):
            raise FormatError(
                f"{self.promote_every} is not a multiple of the chunk of {self.chunk}",
                where="promote_every",
            )


DOT_RULES: Mapping[str, DotRule] = MappingProxyType(
    {
        "sequential": DotRule(order="sequential"),
        "pairs": DotRule(order="pairs"),
        "hopper_fp8": DotRule(
            order="aligned", accumulate="e8m13", fraction_bits=13, operand_emin=-6
        ),
        "hopper_fp8_promoted": DotRule(
            order="aligned",
            accumulate="e8m13",
            fraction_bits=13,
            operand_emin=-6,
            promote_every=128,
        ),
        "blackwell_fp8": DotRule(order="aligned", fraction_bits=25, operand_emin=-6),
    }
)
"""Named rules; `operand_emin` of the fp8 ones is that of e4m3."""


def dot_rule(name: str | DotRule) -> DotRule:
    """Return the dot rule of that name, or the given rule itself.

    Raises: FormatError with the list, if there is none.
    """
    if isinstance(name, DotRule):
        return name
    if name not in DOT_RULES:
        raise FormatError(
            f"there is no dot rule named {name!r}", hint=f"the rules are {', '.join(DOT_RULES)}"
        )
    return DOT_RULES[name]


def dot(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    acc: npt.NDArray[Any] | None = None,
    *,
    rule: str | DotRule = "sequential",
) -> Float32s:
    """Return acc + a @ b, accumulated as the rule says; acc is +0 if left out.

    Shapes: a [M, K]; b [K, N]; acc and result [M, N].
    Raises: ShapeError if they do not match; FormatError for other types than float32, float16 and
    bfloat16 (decode codes first).
    """
    rule = dot_rule(rule)
    a, b = as_float32(a, where="a"), as_float32(b, where="b")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ShapeError(
            f"a {list(a.shape)} and b {list(b.shape)} are not [M, K] and [K, N]", where="dot"
        )
    shape = (a.shape[0], b.shape[1])
    total = np.zeros(shape, np.float32) if acc is None else as_float32(acc, where="acc")
    if total.shape != shape:
        raise ShapeError(f"acc is {list(total.shape)}, not {list(shape)}", where="dot")
    if rule.order == "sequential":
        return _fma_chain(a, b, total)
    if rule.order == "pairs":
        return _pairs(a, b, total, rule.chunk)
    return _aligned(a, b, total, rule)


def _fma_chain(a: Float32s, b: Float32s, acc: Float32s) -> Float32s:
    for k in range(a.shape[1]):
        acc = fma32(a[:, k, np.newaxis], b[np.newaxis, k], acc)
    return acc


def _pairs(a: Float32s, b: Float32s, acc: Float32s, chunk: int) -> Float32s:
    zero = np.zeros_like(acc)
    for start in range(0, a.shape[1], chunk):
        a_part, b_part = a[:, start : start + chunk], b[start : start + chunk]
        even = _fma_chain(a_part[:, 0::2], b_part[0::2], zero)
        odd = _fma_chain(a_part[:, 1::2], b_part[1::2], zero)
        with np.errstate(over="ignore", invalid="ignore"):
            acc = acc + (even + odd)
    return acc


def _aligned(a: Float32s, b: Float32s, acc: Float32s, rule: DotRule) -> Float32s:
    num_products = a.shape[1]
    span = rule.promote_every or max(num_products, 1)
    for outer in range(0, num_products, span):
        partial = acc if rule.promote_every is None else np.zeros_like(acc)
        for start in range(outer, min(outer + span, num_products), rule.chunk):
            stop = min(start + rule.chunk, outer + span)
            partial = _aligned_chunk(a[:, start:stop], b[start:stop], partial, rule)
        with np.errstate(over="ignore", invalid="ignore"):
            acc = partial if rule.promote_every is None else acc + partial
    return acc


def _split(x: npt.NDArray[Any], emin: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Return significand and exponent, x = significand x 2^exponent, exponent at least emin.

    Not-finite items, which the caller treats apart, count as zero.
    """
    x = np.where(np.isfinite(x), x, 0)
    _, exponent = np.frexp(x)
    exponent = np.maximum(np.where(x == 0, emin, exponent - 1), emin)
    return np.ldexp(x.astype(np.float64), -exponent), exponent


def _aligned_chunk(a: Float32s, b: Float32s, acc: Float32s, rule: DotRule) -> Float32s:
    """Add one chunk of products the way a tensor core does.

    Shapes: a [M, chunk]; b [chunk, N]; acc and result [M, N]. Terms are [1 + chunk, M, N].
    """
    assert rule.fraction_bits is not None
    a_terms, b_terms = a.T[:, :, np.newaxis], b[:, np.newaxis, :]
    with np.errstate(invalid="ignore"):
        ieee = (a_terms.astype(np.float64) * b_terms).sum(axis=0) + acc
    significand_a, exponent_a = _split(a_terms, rule.operand_emin)
    significand_b, exponent_b = _split(b_terms, rule.operand_emin)
    significand_acc, exponent_acc = _split(acc[np.newaxis], _MIN_EXPONENT)
    significand = np.concatenate([significand_a * significand_b, significand_acc])
    exponent = np.concatenate([exponent_a + exponent_b, exponent_acc])
    exponent = np.where(significand == 0, 2 * _MIN_EXPONENT, exponent)
    largest = exponent.max(axis=0)
    kept = np.trunc(np.ldexp(significand, exponent - largest + rule.fraction_bits))
    total = np.ldexp(kept.sum(axis=0) + 0.0, largest - rule.fraction_bits)
    significand_sum, exponent_sum = _split(total, _MIN_EXPONENT)
    bits = _ACCUMULATOR_MANTISSA_BITS[rule.accumulate]
    truncated = np.ldexp(np.trunc(np.ldexp(significand_sum, bits)), exponent_sum - bits)
    with np.errstate(over="ignore", under="ignore"):
        return np.where(np.isfinite(ieee), truncated, ieee).astype(np.float32)
