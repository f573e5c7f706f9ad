"""Each function of libdevice by its symbol, and what it means in tile IR."""

from __future__ import annotations

from asterope.triton_backend.convert.libdevice.floats import FLOATS, PREDICATES
from asterope.triton_backend.convert.libdevice.integers import INTEGERS
from asterope.triton_backend.convert.libdevice.norms import NORMS
from asterope.triton_backend.convert.libdevice.rounding import ROUNDED
from asterope.triton_backend.convert.libdevice.special import SPECIAL
from asterope.triton_backend.convert.libdevice.terms import Meaning, Term, fp64_inside

__all__ = ["MEANINGS"]

# Functions that are one op of tile IR under the same name.
_OPS = (
    "exp", "exp2", "log", "log2", "log10", "log1p", "expm1", "sin", "cos", "tan", "asin", "acos",
    "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "sqrt", "rsqrt", "cbrt",
    "rcbrt", "pow", "erf", "erfc", "lgamma", "tgamma", "j0", "j1", "y0", "y1",
)  # fmt: skip


def _op(name: str) -> Meaning:
    return lambda x, *others: x.apply(name, *others)


def _exp10(x: Term) -> Term:
    return x.like(10.0).apply("pow", x)


def _integer_power(x: Term, n: Term) -> Term:
    """Exact exponents need fp64: fp32 would round large ones and lose whether they are odd."""
    return fp64_inside(_op("pow"))(x, n.convert("fp64", "from_signed"))


def _saturate(x: Term) -> Term:
    return x.like(0.0).apply("fmax", x).apply("fmin", 1.0)


def _reciprocal_of_high_half(x: Term) -> Term:
    y = x.like(1.0) / (x.bits() & (-1 << 32)).as_float()
    return (y.bits() & (-1 << 32)).as_float()


# fp32 under the name with a trailing f, fp64 without it.
_BOTH: dict[str, Meaning] = {
    **{name: _op(name) for name in _OPS}, **FLOATS, **NORMS, **SPECIAL, "exp10": _exp10,
}  # fmt: skip
# Intrinsics that are less exact on a GPU; here they are the functions they approximate.
_FAST: dict[str, Meaning] = {
    "fast_fdividef": _op("fdiv"),
    "fast_exp10f": _exp10,
    **{f"fast_{name}f": _op(name) for name in ("sin", "cos", "tan", "log2", "log", "log10")},
    **{f"fast_{name}f": _op(name) for name in ("exp", "pow")},
}
_BITS: dict[str, Meaning] = {
    **dict.fromkeys(("int_as_float", "uint_as_float", "longlong_as_double"), Term.as_float),
    **dict.fromkeys(("float_as_int", "float_as_uint", "double_as_longlong"), Term.bits),
    "half2float": lambda x: x.as_float().convert("fp32"),
    "float2half_rn": lambda x: x.convert("fp16").bits(),
}
_OTHERS: dict[str, Meaning] = {
    "powif": _integer_power,
    "powi": _integer_power,
    "saturatef": _saturate,
    "rcp64h": _reciprocal_of_high_half,
    "frsqrt_rn": fp64_inside(_op("rsqrt")),
}

MEANINGS: dict[str, Meaning] = {
    f"__nv_{name}": meaning
    for table in (
        _BOTH, {f"{name}f": meaning for name, meaning in _BOTH.items()},
        PREDICATES, INTEGERS, ROUNDED, _FAST, _BITS, _OTHERS,
    )
    for name, meaning in table.items()
}  # fmt: skip
