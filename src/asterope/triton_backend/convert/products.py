"""Matrix products."""

from __future__ import annotations

from asterope.ir import Builder, Type, Value
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RULES", "TF32", "TF32_UNASKED"]

_SCALED_FORMATS = ("e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "bf16", "fp16")
TF32 = 0  # Triton's number of that input precision; the others ask for more
TF32_UNASKED = "asterope.tf32_unasked"  # set on a module whose kernel asks for it nowhere


# -- dot ------------------------------------------------------------------------------------------
def _dot(cv: Converter, op: MlirOp, b: Builder) -> None:
    """Multiply at the operands' precision.

    `input_precision` concerns fp32 operands only. "tf32" rounds them; "ieee" multiplies them as
    they are, and so do "tf32x3", "bf16x3" and "bf16x6", whose splits only come close to that.
    Where the kernel asks for "tf32" nowhere, Triton's passes made the product, and it is "ieee".
    `max_num_imprecise_acc` allows a GPU to be less precise than fp32, which nothing here is.
    """
    lhs, rhs, acc = (cv.env[v] for v in op.operands)
    is_tf32 = op.attrs.get("inputPrecision") == TF32 and not cv.options.get(TF32_UNASKED)
    if is_tf32 and lhs.type.elem == rhs.type.elem == "fp32":
        lhs, rhs = _rounded_to_tf32(b, lhs), _rounded_to_tf32(b, rhs)
    wide = lhs.type.bits > 16 or rhs.type.bits > 16
    total = _summed_in_fp32(b, "dot", (lhs, rhs, acc), order="sequential" if wide else "pairs")
    cv.name(op, [total])


def _summed_in_fp32(b: Builder, name: str, operands: tuple[Value, ...], **attrs: object) -> Value:
    """Emit a product; a narrow accumulator, the third operand, is rounded once, after the sum."""
    lhs, rhs, acc, *scales = operands
    if acc.type.elem not in ("fp16", "bf16"):
        return b.value(name, operands, acc.type, **attrs)
    wide = acc.type.with_elem("fp32")
    start = b.value("convert", (acc,), wide, how="float")
    total = b.value(name, (lhs, rhs, start, *scales), wide, **attrs)
    return b.value("convert", (total,), acc.type, how="float")


def _rounded_to_tf32(b: Builder, x: Value) -> Value:
    """Round fp32 to 10 bits of mantissa, to nearest even; what is not finite stays."""
    bits, mask = x.type.with_elem("i32"), x.type.with_elem("i1")

    def number(value: int) -> Value:
        return b.const(bits, value)

    code = b.value("bitcast", (x,), bits)
    odd = b.value("and", (b.value("shru", (code, number(13)), bits), number(1)), bits)
    half = b.value("add", (odd, number(0xFFF)), bits)
    raised = b.value("add", (code, half), bits)
    kept = b.value("bitcast", (b.value("and", (raised, number(-0x2000)), bits),), x.type)
    ordered = b.value("fcmp", (x, x), mask, pred="ord")
    return b.value("select", (ordered, kept, x), x.type)


# -- dot_scaled -----------------------------------------------------------------------------------
def _dot_scaled(cv: Converter, op: MlirOp, b: Builder) -> None:
    """Multiply codes times scales; `fast_math` allows NaN scales to be missed, which none are."""
    lhs, rhs, acc, *scales = (cv.env[v] for v in op.operands)
    for scale in scales:
        if scale.type.elem not in ("i8", "e4m3"):
            raise unsupported(
                op, f"a scale of type {scale.type.elem} is not supported",
                "scales are uint8 (e8m0, one for 32 elements) or float8e4nv (one for 16)",
            )  # fmt: skip
    if not op.attrs.get("lhs_k_pack", True):
        lhs = _transposed(b, _packed_along_k(b, _transposed(b, lhs)))
    if not op.attrs.get("rhs_k_pack", True):
        rhs = _packed_along_k(b, rhs)
    _, _, _, a_scale, b_scale = op.attrs["operandSegmentSizes"]
    formats = [_SCALED_FORMATS[op.attrs[f"{side}_elem_type"]] for side in ("a", "b")]
    total = _summed_in_fp32(
        b, "dot_scaled", (lhs, rhs, acc, *scales),
        a_format=formats[0], b_format=formats[1],
        a_scale=bool(a_scale), b_scale=bool(b_scale),
    )  # fmt: skip
    cv.name(op, [total])


def _packed_along_k(b: Builder, codes: Value) -> Value:
    """Repack [K, N / 2] bytes, each with two neighbours along N, as [K / 2, N] along K."""
    *batch, k, half = codes.type.shape
    low = b.value("and", (codes, b.const(codes.type, 15)), codes.type)
    high = b.value("shru", (codes, b.const(codes.type, 4)), codes.type)
    pairs = b.value("join", (low, high), Type("i8", (*batch, k, half, 2)))
    rows = b.value("reshape", (pairs,), Type("i8", (*batch, k // 2, 2, 2 * half)))
    order = (*range(len(batch) + 1), len(batch) + 2, len(batch) + 1)
    turned = b.value("transpose", (rows,), Type("i8", (*batch, k // 2, 2 * half, 2)), order=order)
    packed = Type("i8", (*batch, k // 2, 2 * half))
    even, odd = b.op("split", (turned,), (packed, packed)).results
    return b.value("or", (even, b.value("shl", (odd, b.const(packed, 4)), packed)), packed)


def _transposed(b: Builder, x: Value) -> Value:
    """Exchange the last two dimensions."""
    *batch, rows, columns = x.type.shape
    order = (*range(len(batch)), len(batch) + 1, len(batch))
    return b.value("transpose", (x,), x.type.with_shape((*batch, columns, rows)), order=order)


RULES: dict[str, Rule] = {"tt.dot": _dot, "tt.dot_scaled": _dot_scaled}
