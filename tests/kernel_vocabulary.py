"""What random kernels are made of: sizes, ops, elements, and how often a step is taken."""

from __future__ import annotations

__all__ = [
    "BINARY_FUNCTIONS",
    "DOT_ELEMENTS", "FLOAT_BINARY", "FLOAT_PREDICATES", "FLOAT_UNARY", "FUNCTIONS", "INT_BINARY",
    "INT_PREDICATES", "INT_UNARY", "MEMORY_ORDERS", "SCALED_FORMATS", "SIZES", "THEMES",
]  # fmt: skip

MEMORY_ORDERS = ("relaxed", "acquire", "release", "acq_rel")
SIZES = (1, 2, 4, 8, 16, 32)
INT_BINARY = (
    "add", "sub", "mul", "and", "or", "xor", "divs", "rems", "divu", "remu", "shl", "shrs", "shru",
    "mins", "maxs", "minu", "maxu", "mulhu",
)  # fmt: skip
FLOAT_BINARY = ("fadd", "fsub", "fmul", "fdiv", "frem", "fmin", "fmax", "fminimum", "fmaximum")
FLOAT_UNARY = ("fneg", "abs", "floor", "ceil", "trunc", "rint", "sqrt")
FUNCTIONS = (
    "exp", "exp2", "log", "log2", "log10", "log1p", "expm1", "sin", "cos", "tanh", "erf", "rsqrt",
    "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "cbrt", "rcbrt",
    "erfc", "lgamma", "tgamma", "j0", "j1", "y0", "y1",
)  # fmt: skip
BINARY_FUNCTIONS = ("atan2", "pow")
INT_UNARY = ("iabs", "bit_count", "leading_zeros", "trailing_zeros", "bit_reverse")
INT_PREDICATES = ("eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")
FLOAT_PREDICATES = (
    "oeq", "ogt", "oge", "olt", "ole", "one", "ord",
    "ueq", "ugt", "uge", "ult", "ule", "une", "uno",
)  # fmt: skip
DOT_ELEMENTS = ("fp32", "bf16", "fp16", "e4m3", "e5m2", "e4m3fnuz", "i8", "fp64")
SCALED_FORMATS = {"e4m3": "e4m3", "e5m2": "e5m2", "e2m1": "i8", "bf16": "bf16", "fp16": "fp16"}

# How often each kind of step is taken, by what a test is about.
THEMES = {
    "elementwise": {"elementwise": 12, "load": 3, "convert": 4, "shape": 1, "store": 2},
    "shapes": {"elementwise": 4, "load": 3, "shape": 8, "reduce": 4, "store": 2},
    "memory": {"elementwise": 4, "load": 6, "store": 6, "reduce": 1, "shape": 1, "branch": 1},
    "atomics": {
        "atomic": 6, "load": 5, "store": 3, "elementwise": 4, "loop": 1, "while": 1, "branch": 1,
        "shape": 1, "reduce": 1,
    },
    "matrices": {"dot": 4, "scaled": 2, "elementwise": 3, "shape": 2, "load": 2, "loop": 1},
    "control": {
        "loop": 3, "while": 2, "branch": 3, "elementwise": 5, "load": 2, "shape": 2,
        "store": 2, "reduce": 1, "pointers": 2, "dot": 1,
    },
}  # fmt: skip
