"""Write tile IR as formulas: terms with operators, numbers beside them becoming constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asterope.ir import Builder, Type, Value

__all__ = ["Meaning", "Term", "fp64_inside", "horner"]

_INT = {"+": "add", "-": "sub", "*": "mul", "&": "and", "|": "or", "^": "xor", "<<": "shl"}
_FLOAT = {"+": "fadd", "-": "fsub", "*": "fmul", "/": "fdiv"}


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One value of tile IR under construction. Comparisons of floats are false for NaN."""

    builder: Builder
    value: Value

    @property
    def type(self) -> Type:
        """The type of the value."""
        return self.value.type

    @property
    def elem(self) -> str:
        """The element of the type."""
        return str(self.type.elem)

    def like(self, other: Term | float) -> Term:
        """Return a term as it is, a number as a constant of this type."""
        if isinstance(other, Term):
            return other
        number = float(other) if self.type.is_float else _wrapped(int(other), self.type.bits)
        return Term(self.builder, self.builder.const(self.type, number))

    def apply(self, name: str, *others: Term | float, elem: str = "", **attrs: str) -> Term:
        """Append an op on this and other operands; its element is this one's unless given."""
        operands = [self.value, *(self.like(x).value for x in others)]
        type_ = self.type.with_elem(elem) if elem else self.type
        return Term(self.builder, self.builder.value(name, operands, type_, **attrs))

    def _binary(self, sign: str, other: Term | float) -> Term:
        return self.apply((_FLOAT if self.type.is_float else _INT)[sign], other)

    def __add__(self, other: Term | float) -> Term:
        return self._binary("+", other)

    def __sub__(self, other: Term | float) -> Term:
        return self._binary("-", other)

    def __mul__(self, other: Term | float) -> Term:
        return self._binary("*", other)

    def __truediv__(self, other: Term | float) -> Term:
        return self._binary("/", other)

    def __and__(self, other: Term | float) -> Term:
        return self._binary("&", other)

    def __or__(self, other: Term | float) -> Term:
        return self._binary("|", other)

    def __xor__(self, other: Term | float) -> Term:
        return self._binary("^", other)

    def __lshift__(self, other: Term | float) -> Term:
        return self._binary("<<", other)

    def __rshift__(self, other: Term | float) -> Term:
        """Shift right, filling with zeros."""
        return self.apply("shru", other)

    def __neg__(self) -> Term:
        return self.apply("fneg") if self.type.is_float else self.like(0) - self

    def __invert__(self) -> Term:
        return self ^ -1

    def fma(self, b: Term | float, c: Term | float) -> Term:
        """Return self * b + c, rounded once."""
        return self.apply("fma", b, c)

    def compare(self, pred: str, other: Term | float) -> Term:
        """Compare by a predicate of `cmp` or `fcmp`."""
        return self.apply("fcmp" if self.type.is_float else "cmp", other, elem="i1", pred=pred)

    def lt(self, other: Term | float) -> Term:
        """Less than, signed."""
        return self.compare("olt" if self.type.is_float else "slt", other)

    def gt(self, other: Term | float) -> Term:
        """Greater than, signed."""
        return self.compare("ogt" if self.type.is_float else "sgt", other)

    def ge(self, other: Term | float) -> Term:
        """Greater or equal, signed."""
        return self.compare("oge" if self.type.is_float else "sge", other)

    def eq(self, other: Term | float) -> Term:
        """Equal."""
        return self.compare("oeq" if self.type.is_float else "eq", other)

    def abs(self) -> Term:
        """The absolute value of a float."""
        return self.apply("abs")

    def is_nan(self) -> Term:
        """Whether a float is NaN."""
        return self.compare("uno", self)

    def where(self, a: Term | float, b: Term | float) -> Term:
        """Choose `a` where this condition holds, else `b`; one of them is a term."""
        pattern = a if isinstance(a, Term) else b
        assert isinstance(pattern, Term)
        operands = [self.value, pattern.like(a).value, pattern.like(b).value]
        return Term(self.builder, self.builder.value("select", operands, pattern.type))

    def convert(self, elem: str, how: str = "float", **attrs: str) -> Term:
        """Convert to another element; one that is there already stays."""
        return self if elem == self.elem else self.apply("convert", elem=elem, how=how, **attrs)

    def bits(self) -> Term:
        """The bits of a float as an integer."""
        return self.apply("bitcast", elem=f"i{self.type.bits}")

    def as_float(self) -> Term:
        """The float that has these bits."""
        return self.apply("bitcast", elem=f"fp{self.type.bits}")

    def signed_as(self, other: Term) -> Term:
        """Return the float with the sign of another."""
        sign = -1 << (self.type.bits - 1)
        return ((self.bits() & ~sign) | (other.bits() & sign)).as_float()


Meaning = Callable[..., Term]


def _wrapped(number: int, bits: int) -> int:
    number &= (1 << bits) - 1
    return number - (1 << bits) if bits > 1 and number >> (bits - 1) else number


def fp64_inside(f: Meaning) -> Meaning:
    """Compute in fp64 whatever the element; an fp32 result is rounded once at the end."""

    def meaning(*args: Term) -> Term:
        wide = [a.convert("fp64") if a.type.is_float else a for a in args]
        narrow = any(a.elem == "fp32" for a in args)
        return f(*wide).convert("fp32" if narrow else "fp64")

    return meaning


def horner(x: Term, coefficients: Sequence[float]) -> Term:
    """Evaluate sum c_i x^i in fused multiply-adds."""
    total = x.like(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total.fma(x, c)
    return total
