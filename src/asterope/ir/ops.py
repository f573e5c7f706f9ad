"""Every op of tile IR, declared once: what it means, which engine runs it, what it must satisfy.

Semantics are run by the reference interpreter (`asterope.ir.interpreter`), which defines them.
Elementwise ops work on blocks of any one shape, scalars included. Scalar ops run on a control
processor, so the engine below is that of blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from asterope.ir import checks
from asterope.ir.checks import Check
from asterope.ir.types import FLOATS, INTEGERS

__all__ = ["OPS", "Engine", "OpSpec"]


class Engine(StrEnum):
    """Who executes an op on the chip."""

    CONTROL = "control"
    LOAD = "load"
    STORE = "store"
    TENSOR = "tensor"
    VECTOR = "vector"


@dataclass(frozen=True, kw_only=True, slots=True)
class OpSpec:
    """The declaration of one op.

    `cost` classes vector work: "op" one operation an element, "function" one transcendental an
    element, "move" a pass through the reshaper, "free" pure addressing. `has_effect` keeps the op
    alive without users. `times` is how many such operations one element takes.
    """

    name: str
    engine: Engine
    check: Check
    meaning: str
    cost: str = "free"
    times: int = 1
    has_effect: bool = False


def _vector(
    names: str, check: Check, meaning: str, cost: str = "op", times: int = 1
) -> list[OpSpec]:
    return [
        OpSpec(name=n, engine=Engine.VECTOR, check=check, meaning=meaning, cost=cost, times=times)
        for n in names.split()
    ]


def _control(name: str, check: Check, meaning: str, *, has_effect: bool = False) -> list[OpSpec]:
    spec = OpSpec(
        name=name, engine=Engine.CONTROL, check=check, meaning=meaning, has_effect=has_effect
    )
    return [spec]


_TABLE = [
    # -- integers: two's complement, wrapping ------------------------------------------------
    *_vector("add sub mul and or xor", checks.same(2, INTEGERS), "the named operation, wrapping"),
    *_vector("divs rems divu remu", checks.same(2, INTEGERS), "quotient and remainder towards zero, signed and unsigned; by zero: 0 and a"),
    *_vector("shl shrs shru", checks.same(2, INTEGERS), "shifts; by the width or more: 0, or the sign"),
    *_vector("mins maxs minu maxu", checks.same(2, INTEGERS), "smaller and larger, signed and unsigned"),
    *_vector("mulhu", checks.same(2, INTEGERS), "high half of the unsigned product"),
    *_vector("bit_count leading_zeros trailing_zeros", checks.same(1, INTEGERS), "how many bits are set; are 0 above the highest, below the lowest that is set"),
    *_vector("bit_reverse", checks.same(1, INTEGERS), "the bits in reverse order"),
    *_vector("cmp", checks.int_compare, "compare integers or addresses by `pred`"),
    # -- floats: IEEE 754, each result rounded to nearest even in the element's format ---------
    *_vector("fadd fsub fmul fdiv frem", checks.same(2, FLOATS), "the named operation; frem has the dividend's sign"),
    *_vector("fmin fmax", checks.same(2, FLOATS), "smaller and larger; of a number and NaN, the number"),
    *_vector("fminimum fmaximum", checks.same(2, FLOATS), "smaller and larger; NaN if either is"),
    *_vector("fneg abs", checks.same(1, FLOATS), "negated; absolute value"),
    *_vector("iabs", checks.same(1, INTEGERS), "absolute value, wrapping"),
    *_vector("fma", checks.same(3, FLOATS), "a * b + c, rounded once"),
    *_vector("fcmp", checks.float_compare, "compare by `pred`: o... false and u... true if either is NaN"),
    *_vector("floor ceil trunc rint", checks.same(1, FLOATS), "rounded to an integer: down, up, to zero, to nearest even"),
    *_vector(
        "exp exp2 log log2 log10 log1p expm1 sin cos tanh erf sqrt rsqrt",
        checks.same(1, FLOATS), "the named function, correctly rounded here", "function",
    ),
    # Counted as the functions each is composed of: tan is sin and cos, pow is log2 and exp2, ...
    *_vector(
        "atan sinh cosh atanh erfc",
        checks.same(1, FLOATS), "the named function, correctly rounded here", "function",
    ),
    *_vector(
        "tan asin acos asinh acosh cbrt rcbrt lgamma tgamma j0 j1 y0 y1",
        checks.same(1, FLOATS), "the named function; rcbrt is 1 / cbrt, j and y are Bessel's", "function", 2,
    ),
    *_vector("atan2", checks.same(2, FLOATS), "the angle of the point (b, a)", "function"),
    *_vector("pow", checks.same(2, FLOATS), "a to the power b", "function", 2),
    *_vector("jn yn", checks.bessel, "Bessel's functions of order a >= 0, an i32, at b", "function", 4),
    *_vector("directed", checks.directed, "`of` (fadd fsub fmul fdiv fma sqrt) with its result rounded by `rounding`: toward_zero, down, up"),
    *_vector("select", checks.select, "a where the condition holds, else b"),
    *_vector("convert", checks.convert, "`how`: sext zext trunc, float to float, integer and float; narrower floats than fp32 are reached through fp32; float to fp8 saturates, to integer saturates and NaN is 0"),
    *_vector("bitcast", checks.bitcast, "the same bits as another element", "free"),
    *_vector("ptr_to_int", checks.pointer_to_int, "an address as i64", "free"),
    *_vector("int_to_ptr", checks.int_to_pointer, "an i64 as an address", "free"),
    # -- shape -------------------------------------------------------------------------------
    *_vector("const", checks.const, "the number `value` in every element", "free"),
    *_vector("iota", checks.iota, "start, start + 1, ...", "free"),
    *_vector("broadcast", checks.broadcast, "a scalar, or dimensions of size 1, repeated", "free"),
    *_vector("expand", checks.expand, "a new dimension of size 1 at `axis`", "free"),
    *_vector("reshape", checks.reshape, "the same elements, row-major, in another shape", "free"),
    *_vector("transpose", checks.transpose, "dimensions in another `order`", "move"),
    *_vector("join", checks.join, "two blocks interleaved in a new last dimension", "move"),
    *_vector("split", checks.split, "the last dimension of size 2 taken apart", "move"),
    *_vector("exchange", checks.exchange, "elements i and i xor `mask` of one dimension change places", "move"),
    *_vector("gather", checks.gather, "elements of one dimension picked by an index, read without a sign; one beyond the last picks the last", "move"),
    *_vector("histogram", checks.histogram, "how often 0, 1, ... occur where the mask is on; other values are not counted"),
    # -- element by element, by the name of an op or a block of scalars -----------------------------
    *_vector("reduce", checks.reduce, "one dimension combined: partial i takes elements i, i+64, ... in order; then the 64 partials halve: p[i] with p[i+32], ..."),
    *_vector("scan", checks.scan, "one dimension combined from its first element on (its last, if `reverse`), strictly one after the other, each total kept"),
    *_vector("map", checks.map_, "the block run for every `pack` elements in row-major order"),
    *_vector("popcount", checks.popcount, "how many elements are set"),
    # -- matrices ----------------------------------------------------------------------------
    OpSpec(name="dot", engine=Engine.TENSOR, check=checks.dot, meaning="acc + a b in fp32 (fp64, i32), summed in `order`; of each matrix of a batch"),
    OpSpec(name="dot_scaled", engine=Engine.TENSOR, check=checks.dot_scaled, meaning="acc + (a times its block scales)(b times its block scales), in pairs order; of each matrix of a batch"),
    # -- memory ------------------------------------------------------------------------------
    *_vector("addptr", checks.addptr, "addresses moved by elements; offsets are signed, a set i1 is -1", "free"),
    OpSpec(name="load", engine=Engine.LOAD, check=checks.load, meaning="gather: elements at addresses, `other` or 0 where masked off"),
    OpSpec(name="store", engine=Engine.STORE, check=checks.store, meaning="scatter: elements to addresses, in order", has_effect=True),
    OpSpec(name="load_tile", engine=Engine.LOAD, check=checks.load_tile, meaning="elements at base + sum of offset_d[i_d], `other` or 0 where a mask_d is off"),
    OpSpec(name="store_tile", engine=Engine.STORE, check=checks.store_tile, meaning="elements to base + sum of offset_d[i_d] where every mask_d is on; of several to one address, any stays", has_effect=True),
    OpSpec(name="atomic_rmw", engine=Engine.STORE, check=checks.atomic_rmw, meaning="what is at addresses is replaced by its combination with values by `combine` (or `exchange`), element by element in order, each in one step that no other program divides, in `memory_order`; gives what was there, 0 where masked off", has_effect=True),
    OpSpec(name="atomic_rmw_tile", engine=Engine.STORE, check=checks.atomic_rmw_tile, meaning="the same at base + sum of offset_d[i_d]", has_effect=True),
    OpSpec(name="atomic_cas", engine=Engine.STORE, check=checks.atomic_cas, meaning="the same, but the value replaces what is there only if that has the expected bits", has_effect=True),
    # -- control -----------------------------------------------------------------------------
    *_control("program_id", checks.program_id, "which program of the grid this is, along `axis`"),
    *_control("num_programs", checks.program_id, "the grid's size along `axis`"),
    *_control("for", checks.for_, "the body for lo, lo + step, ... below hi, carrying values; loads inside are `num_stages` deep"),
    *_control("while", checks.while_, "the second block while the first gives true, carrying values"),
    *_control("if", checks.if_, "the first block if true, else the second"),
    *_control("yield", checks.terminator, "gives values to the op around", has_effect=True),
    *_control("condition", checks.terminator, "whether to go on, and the values passed on", has_effect=True),
    *_control("return", checks.terminator, "ends the program", has_effect=True),
    # -- reports: what a program says while it runs ---------------------------------------------
    *_control("print", checks.print_, "a line for each element: program, index, `prefix`, number (in `hex` if set); repeated where `threads` are more than elements", has_effect=True),
    *_control("assert", checks.assert_, "ends the launch with an error that says `message` unless every element is set", has_effect=True),
    # -- time: what a program becomes for the simulator ----------------------------------------
    *_control("signalled", checks.signalled, "a semaphore that nobody has to wait for"),
    *_control("issue", checks.issue, "enqueue macro-instruction `instruction` with its numbers; it waits for semaphores and signals one", has_effect=True),
]  # fmt: skip

OPS: dict[str, OpSpec] = {spec.name: spec for spec in _TABLE}
