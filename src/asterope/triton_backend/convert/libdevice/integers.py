"""What libdevice's functions of integers mean."""

from __future__ import annotations

from asterope.triton_backend.convert.libdevice.terms import Meaning, Term

__all__ = ["INTEGERS"]


def _to_i32(x: Term) -> Term:
    return x.convert("i32", "trunc")


def _find_first_set(x: Term) -> Term:
    """One more than the place of the lowest set bit; 0 if there is none."""
    return _to_i32(x.eq(0).where(0, x.apply("trailing_zeros") + 1))


def _byte_perm(x: Term, y: Term, selector: Term) -> Term:
    """Pick four of the eight bytes of y:x; a selector's highest bit repeats the byte's sign."""
    both = _joined(y, x)
    result = x.like(0)
    for i in range(4):
        chosen = (selector >> (4 * i)) & 0xF
        place = ((chosen & 7) << 3).convert("i64", "zext")
        byte = _to_i32(both >> place) & 0xFF
        sign = (byte & 0x80).eq(0).where(byte.like(0), 0xFF)
        result = result | ((chosen & 8).eq(0).where(byte, sign) << (8 * i))
    return result


def _joined(high: Term, low: Term) -> Term:
    return (high.convert("i64", "zext") << 32) | low.convert("i64", "zext")


def _high_signed(x: Term, y: Term) -> Term:
    """High half of the signed product: the unsigned one, less what the signs took for 2^n."""
    high = x.apply("mulhu", y)
    high = high - x.lt(0).where(y, 0)
    return high - y.lt(0).where(x, 0)


def _low_24(x: Term) -> Term:
    return (x << 8).apply("shrs", 8)


def _distance(larger: str, smaller: str) -> Meaning:
    return lambda x, y, z: x.apply(larger, y) - x.apply(smaller, y) + z


INTEGERS: dict[str, Meaning] = {
    "popc": lambda x: x.apply("bit_count"),
    "popcll": lambda x: _to_i32(x.apply("bit_count")),
    "clz": lambda x: x.apply("leading_zeros"),
    "clzll": lambda x: _to_i32(x.apply("leading_zeros")),
    "ffs": _find_first_set,
    "ffsll": _find_first_set,
    "brev": lambda x: x.apply("bit_reverse"),
    "brevll": lambda x: x.apply("bit_reverse"),
    "byte_perm": _byte_perm,
    "mulhi": _high_signed,
    "mul64hi": _high_signed,
    "umulhi": lambda x, y: x.apply("mulhu", y),
    "umul64hi": lambda x, y: x.apply("mulhu", y),
    "mul24": lambda x, y: _low_24(x) * _low_24(y),
    "umul24": lambda x, y: (x & 0xFFFFFF) * (y & 0xFFFFFF),
    "sad": _distance("maxs", "mins"),
    "usad": _distance("maxu", "minu"),
    "hadd": lambda x, y: (x & y) + (x ^ y).apply("shrs", 1),
    "uhadd": lambda x, y: (x & y) + ((x ^ y) >> 1),
    "rhadd": lambda x, y: (x | y) - (x ^ y).apply("shrs", 1),
    "urhadd": lambda x, y: (x | y) - ((x ^ y) >> 1),
    "abs": lambda x: x.apply("iabs"),
    "llabs": lambda x: x.apply("iabs"),
    **{
        f"{prefix}{name}": lambda x, y, op=f"{name}{sign}": x.apply(op, y)
        for prefix, sign in (("", "s"), ("ll", "s"), ("u", "u"), ("ull", "u"))
        for name in ("min", "max")
    },
    "hiloint2double": lambda high, low: _joined(high, low).as_float(),
    "double2loint": lambda x: _to_i32(x.bits()),
    "double2hiint": lambda x: _to_i32(x.bits() >> 32),
}
