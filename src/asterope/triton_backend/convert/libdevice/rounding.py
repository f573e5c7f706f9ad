"""What libdevice's arithmetic and conversions with a stated rounding mean."""

from __future__ import annotations

from asterope.triton_backend.convert.libdevice.terms import Meaning, Term

__all__ = ["ROUNDED"]

_ROUNDINGS = {"rn": "", "rz": "toward_zero", "rd": "down", "ru": "up"}
_TO_WHOLE = {"rn": "rint", "rz": "trunc", "rd": "floor", "ru": "ceil"}
# libdevice's letter or word for a type, and ours.
_INTEGERS = {"int": "i32", "uint": "i32", "ll": "i64", "ull": "i64"}
_FLOATS = {"float": "fp32", "double": "fp64"}


def _directed(of: str, rounding: str) -> Meaning:
    def meaning(*args: Term) -> Term:
        first, *rest = args
        if not rounding:
            return first.apply(of, *rest)
        return first.apply("directed", *rest, of=of, rounding=rounding)

    return meaning


def _reciprocal(rounding: str) -> Meaning:
    return lambda x: _directed("fdiv", rounding)(x.like(1.0), x)


def _arithmetic() -> dict[str, Meaning]:
    """`fadd_rz`, `dadd_rz`, `fsqrt_ru`, ... and `fmaf_rd` for fp32, `fma_rd` for fp64."""
    table: dict[str, Meaning] = {}
    for short, rounding in _ROUNDINGS.items():
        for name, op in (
            ("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("div", "fdiv"), ("sqrt", "sqrt"),
        ):  # fmt: skip
            for letter in "fd":
                table[f"{letter}{name}_{short}"] = _directed(op, rounding)
        for letter in "fd":
            table[f"{letter}rcp_{short}"] = _reciprocal(rounding)
        for name in ("fma", "fmaf"):
            table[f"{name}_{short}"] = _directed("fma", rounding)
    return table


def _narrowed(rounding: str) -> Meaning:
    """fp64 to fp32. What was cut toward zero and lies on the wrong side goes one code out."""

    def meaning(x: Term) -> Term:
        if not rounding:
            return x.convert("fp32")
        cut = x.convert("fp32", rounding="toward_zero")
        if rounding == "toward_zero":
            return cut
        back = cut.convert("fp64")
        wrong = back.lt(x) if rounding == "up" else back.gt(x)
        return wrong.where(cut.bits() + 1, cut.bits()).as_float()

    return meaning


def _to_integer(source: str, target: str, short: str) -> Meaning:
    """Round, then saturate. NaN is 0, but the lowest integer if either type has 64 bits."""
    elem, how = _INTEGERS[target], "to_unsigned" if target[0] == "u" else "to_signed"

    def meaning(x: Term) -> Term:
        whole = x.apply(_TO_WHOLE[short]).convert(elem, how)
        if source == "double" or elem == "i64":
            whole = x.is_nan().where(-1 << (whole.type.bits - 1), whole)
        return whole

    return meaning


def _from_integer(source: str, target: str, rounding: str) -> Meaning:
    """Add the exact halves in fp64; rounding the same way again, to fp32, changes nothing more."""
    unsigned = source[0] == "u"
    how = "from_unsigned" if unsigned else "from_signed"

    def meaning(x: Term) -> Term:
        if not rounding:
            return x.convert(_FLOATS[target], how)
        if x.elem == "i32":
            wide = x.convert("fp64", how)
        else:
            high = x >> 32 if unsigned else x.apply("shrs", 32)
            high = high.convert("fp64", "from_signed") * 2.0**32
            low = (x & 0xFFFFFFFF).convert("fp64", "from_signed")
            wide = _directed("fadd", rounding)(high, low)
        return wide if target == "double" else _narrowed(rounding)(wide)

    return meaning


def _conversions() -> dict[str, Meaning]:
    table: dict[str, Meaning] = {}
    for short, rounding in _ROUNDINGS.items():
        table[f"double2float_{short}"] = _narrowed(rounding)
        for integer in _INTEGERS:
            for real in _FLOATS:
                table[f"{real}2{integer}_{short}"] = _to_integer(real, integer, short)
                table[f"{integer}2{real}_{short}"] = _from_integer(integer, real, rounding)
    return table


ROUNDED: dict[str, Meaning] = {**_arithmetic(), **_conversions()}
