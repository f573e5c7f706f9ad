"""Write LLVM IR: typed values with operators, loops and branches as context managers.

`Val` is one LLVM value: a scalar (`lanes == 0`) or a vector. Arithmetic on it appends
instructions to its `Function`. No fast-math flag is ever set: what is written is what is
computed, in that order, on every CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from asterope.native.cpu import Isa
from asterope.native.types import BITS, literal_text, suffix_text, type_text

__all__ = ["Function", "Module", "Val"]

_AVX_BITS = 256
_MASK_MOVES = {
    "f32": "avx.maskload.ps", "f64": "avx.maskload.pd",
    "i32": "avx2.maskload.d", "i64": "avx2.maskload.q",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Val:
    """One LLVM value of a function: its name, element kind and number of lanes (0: scalar)."""

    fn: Function
    ref: str
    kind: str
    lanes: int = 0

    @property
    def text(self) -> str:
        """The value with its type in front, as an operand is written."""
        return f"{type_text(self.kind, self.lanes)} {self.ref}"

    @property
    def is_float(self) -> bool:
        """Whether the elements are floating-point."""
        return self.kind[0] == "f"

    # -- coercion ---------------------------------------------------------------------------
    def like(self, other: Val | float) -> Val:
        """Return `other` as a value of this kind and lane count, splatting scalars."""
        if not isinstance(other, Val):
            return self.fn.const(self.kind, other, self.lanes)
        return other.splat(self.lanes) if self.lanes and not other.lanes else other

    def _pair(self, other: Val | float) -> tuple[Val, Val]:
        if isinstance(other, Val) and other.lanes and not self.lanes:
            return self.splat(other.lanes), other
        return self, self.like(other)

    def splat(self, lanes: int) -> Val:
        """Broadcast a scalar to a vector of `lanes` lanes."""
        if not lanes or self.lanes == lanes:
            return self
        if self.ref[0] != "%":
            return Val(self.fn, f"splat ({self.text})", self.kind, lanes)
        ty = type_text(self.kind, lanes)
        one = self.fn.line(f"insertelement {ty} poison, {self.text}, i64 0", self.kind, lanes)
        order = f"<{lanes} x i32> zeroinitializer"
        return self.fn.line(f"shufflevector {ty} {one.ref}, {ty} poison, {order}", self.kind, lanes)

    def _binary(self, int_op: str, float_op: str, other: Val | float) -> Val:
        a, b = self._pair(other)
        op = float_op if a.is_float else int_op
        return self.fn.line(f"{op} {a.text}, {b.ref}", a.kind, a.lanes)

    # -- arithmetic -------------------------------------------------------------------------
    def __add__(self, other: Val | float) -> Val:
        return self._binary("add", "fadd", other)

    def __sub__(self, other: Val | float) -> Val:
        return self._binary("sub", "fsub", other)

    def __mul__(self, other: Val | float) -> Val:
        return self._binary("mul", "fmul", other)

    def __truediv__(self, other: Val | float) -> Val:
        return self._binary("sdiv", "fdiv", other)

    def __and__(self, other: Val | float) -> Val:
        return self._binary("and", "", other)

    def __or__(self, other: Val | float) -> Val:
        return self._binary("or", "", other)

    def __xor__(self, other: Val | float) -> Val:
        return self._binary("xor", "", other)

    def __lshift__(self, other: Val | float) -> Val:
        return self._binary("shl", "", other)

    def __rshift__(self, other: Val | float) -> Val:
        """Shift right, filling with zeros; `sar` keeps the sign."""
        return self._binary("lshr", "", other)

    def sar(self, other: Val | float) -> Val:
        """Shift right, keeping the sign."""
        return self._binary("ashr", "", other)

    def op(self, name: str, other: Val | float) -> Val:
        """Apply a named binary instruction (`udiv`, `srem`, `frem`)."""
        return self._binary(name, name, other)

    def __neg__(self) -> Val:
        if self.is_float:
            return self.fn.line(f"fneg {self.text}", self.kind, self.lanes)
        return self.like(0) - self

    def __invert__(self) -> Val:
        return self ^ (1 if self.kind == "i1" else -1)

    # -- comparison and choice --------------------------------------------------------------
    def cmp(self, pred: str, other: Val | float) -> Val:
        """Compare: `eq ne slt ult ...` on integers, `oeq olt une uno ...` on floats."""
        a, b = self._pair(other)
        op = "fcmp" if a.is_float else "icmp"
        return self.fn.line(f"{op} {pred} {a.text}, {b.ref}", "i1", a.lanes)

    def lt(self, other: Val | float) -> Val:
        """Less than, signed; false if either is NaN."""
        return self.cmp("olt" if self.is_float else "slt", other)

    def le(self, other: Val | float) -> Val:
        """Less or equal, signed; false if either is NaN."""
        return self.cmp("ole" if self.is_float else "sle", other)

    def gt(self, other: Val | float) -> Val:
        """Greater than, signed; false if either is NaN."""
        return self.cmp("ogt" if self.is_float else "sgt", other)

    def ge(self, other: Val | float) -> Val:
        """Greater or equal, signed; false if either is NaN."""
        return self.cmp("oge" if self.is_float else "sge", other)

    def eq(self, other: Val | float) -> Val:
        """Equal; false if either is NaN."""
        return self.cmp("oeq" if self.is_float else "eq", other)

    def ne(self, other: Val | float) -> Val:
        """Not equal; true if either is NaN."""
        return self.cmp("une" if self.is_float else "ne", other)

    def is_nan(self) -> Val:
        """Whether the value is NaN."""
        return self.cmp("uno", 0.0)

    def where(self, a: Val | float, b: Val | float, kind: str = "") -> Val:
        """Choose `a` where this condition holds, else `b`; `kind` types two plain numbers."""
        lanes = self.lanes or max(x.lanes for x in (a, b, self) if isinstance(x, Val))
        typed = next((x.kind for x in (a, b) if isinstance(x, Val)), kind)
        template = Val(self.fn, "poison", typed, lanes)
        x, y = template.like(a), template.like(b)
        return self.fn.line(f"select {self.text}, {x.text}, {y.text}", typed, x.lanes)

    # -- conversion -------------------------------------------------------------------------
    def _convert(self, op: str, kind: str) -> Val:
        target = type_text(kind, self.lanes)
        return self.fn.line(f"{op} {self.text} to {target}", kind, self.lanes)

    def bits_as(self, kind: str) -> Val:
        """Reinterpret the bits of each lane as another kind of the same width."""
        return self if kind == self.kind else self._convert("bitcast", kind)

    def zext(self, kind: str) -> Val:
        """Widen (or narrow) an integer, filling with zeros."""
        if BITS[kind] == BITS[self.kind]:
            return self
        return self._convert("zext" if BITS[kind] > BITS[self.kind] else "trunc", kind)

    def narrowed(self, kind: str) -> Val:
        """Narrow an integer that is not negative and fits, so that widening it gives it back."""
        return self._convert("trunc nuw nsw", kind)

    def sext(self, kind: str) -> Val:
        """Widen (or narrow) an integer, keeping the sign."""
        if BITS[kind] == BITS[self.kind]:
            return self
        return self._convert("sext" if BITS[kind] > BITS[self.kind] else "trunc", kind)

    def to_float(self, kind: str, *, signed: bool = True) -> Val:
        """Convert an integer to floating point, rounding to nearest even."""
        return self._convert("sitofp" if signed else "uitofp", kind)

    def to_int_inside(self, kind: str) -> Val:
        """Convert a value known to fit to an integer; NaN gives some integer."""
        converted = self._convert("fptosi", kind)
        return self.fn.line(f"freeze {converted.text}", kind, self.lanes)

    def to_int(self, kind: str, *, signed: bool = True) -> Val:
        """Convert to an integer, rounding to zero and saturating; NaN becomes 0."""
        # LLVM's own saturating conversion of a vector goes lane by lane.
        high = 2.0 ** (BITS[kind] - signed)
        low = -high if signed else 0.0
        inside = self.ge(low) & self.lt(high)
        whole = inside.where(self, 0.0)._convert("fptosi" if signed else "fptoui", kind)
        whole = self.ge(high).where(int(high) - 1, whole)
        return self.lt(low).where(int(low), whole)

    def fext(self, kind: str) -> Val:
        """Widen or narrow a float, rounding to nearest even."""
        if kind == self.kind:
            return self
        return self._convert("fpext" if BITS[kind] > BITS[self.kind] else "fptrunc", kind)

    # -- functions of one or more values ----------------------------------------------------
    def unary(self, name: str) -> Val:
        """Apply an LLVM intrinsic of one operand: `sqrt fabs floor ceil trunc roundeven`."""
        return self.fn.intrinsic(name, self)

    def fma(self, b: Val | float, c: Val | float) -> Val:
        """Return self * b + c, rounded once."""
        lanes = max(x.lanes for x in (self, b, c) if isinstance(x, Val))
        a = self.splat(lanes)
        return self.fn.intrinsic("fma", a, a.like(b), a.like(c))

    def minimum(self, name: str, other: Val | float) -> Val:
        """Apply an intrinsic of two operands: `smin umax minnum maximum copysign`."""
        a, b = self._pair(other)
        return self.fn.intrinsic(name, a, b)

    # -- lanes ------------------------------------------------------------------------------
    def lane(self, index: int | Val) -> Val:
        """Take one lane as a scalar."""
        at = index.text if isinstance(index, Val) else f"i64 {index}"
        return self.fn.line(f"extractelement {self.text}, {at}", self.kind)

    def with_lane(self, index: int, value: Val) -> Val:
        """Return the vector with one lane replaced."""
        return self.fn.line(
            f"insertelement {self.text}, {value.text}, i64 {index}", self.kind, self.lanes
        )

    def shuffle(self, order: Sequence[int], other: Val | None = None) -> Val:
        """Pick lanes of this vector (and, from `lanes` up, of `other`)."""
        lanes, mask = len(order), ", ".join(f"i32 {i}" for i in order)
        second = other.text if other else f"{type_text(self.kind, self.lanes)} poison"
        text = f"shufflevector {self.text}, {second}, <{lanes} x i32> <{mask}>"
        return self.fn.line(text, self.kind, lanes)

    def all_lanes(self) -> Val:
        """Whether every lane of a mask is set, as a scalar."""
        if not self.lanes:
            return self
        mask = suffix_text("i1", self.lanes)
        return self.fn.call(f"llvm.vector.reduce.and.{mask}", (self,), "i1")

    def any_lane(self) -> Val:
        """Whether some lane of a mask is set, as a scalar."""
        if not self.lanes:
            return self
        return self.fn.call(f"llvm.vector.reduce.or.{suffix_text('i1', self.lanes)}", (self,), "i1")

    def offset(self, num_bytes: Val | int) -> Val:
        """Move a pointer by a number of bytes."""
        amount = num_bytes if isinstance(num_bytes, Val) else self.fn.const("i64", num_bytes)
        lanes = amount.lanes or self.lanes
        return self.fn.line(f"getelementptr i8, {self.text}, {amount.text}", "ptr", lanes)


class Module:
    """LLVM IR text under construction: declarations and finished functions."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        self._declared: dict[str, str] = {}
        self._bodies: list[str] = []
        self._globals: dict[str, str] = {}
        self._names: set[str] = set()
        self._metadata: list[str] = []

    def declare(self, name: str, result: str, params: Sequence[str]) -> None:
        """Declare a function that is not defined here once, by LLVM type texts."""
        if name in self._names:
            return
        self._declared.setdefault(name, f"declare {result} @{name}({', '.join(params)})")

    def table(self, kind: str, values: Sequence[float]) -> str:
        """Add a constant array once and return its name."""
        items = ", ".join(f"{type_text(kind)} {literal_text(kind, v)}" for v in values)
        body = (
            f"private unnamed_addr constant [{len(values)} x {type_text(kind)}] [{items}], align 64"
        )
        return self._globals.setdefault(body, f"@table{len(self._globals)}")

    def scratch(self, name: str, num_bytes: int) -> None:
        """Add a zeroed global of so many bytes, for code that is never run by two threads."""
        self._globals[f"internal global [{num_bytes} x i8] zeroinitializer, align 64"] = f"@{name}"

    def function(self, name: str, params: Sequence[tuple[str, str]]) -> Function:
        """Start a function returning nothing; parameters are (kind or LLVM type, name)."""
        self._names.add(name)
        return Function(self, name, params)

    def define(self, name: str, text: str) -> None:
        """Add a whole function given as text."""
        self._names.add(name)
        self.finish(text)

    def rolled_loop(self) -> str:
        """Return metadata for the branch back of a loop that should not be unrolled."""
        number = len(self._metadata)
        self._metadata.append(f"!{number} = distinct !{{!{number}, !{number + 1}}}")
        self._metadata.append(f'!{number + 1} = !{{!"llvm.loop.unroll.disable"}}')
        return f", !llvm.loop !{number}"

    def has(self, name: str) -> bool:
        """Whether a function of that name was started here."""
        return name in self._names

    def finish(self, text: str) -> None:
        """Add the text of a finished function."""
        self._bodies.append(text)

    def text(self) -> str:
        """Return the whole module as LLVM IR."""
        tables = [f"{name} = {body}" for body, name in self._globals.items()]
        parts = [*tables, *self._declared.values(), *self._bodies, *self._metadata]
        return "\n".join(parts) + "\n"


class Function:
    """One function under construction. Mutable state lives in stack slots; LLVM removes them."""

    def __init__(self, module: Module, name: str, params: Sequence[tuple[str, str]]) -> None:
        self.module = module
        self.isa = module.isa
        self._name = name
        self._params = params
        self._entry: list[str] = []
        self._lines: list[str] = []
        self._count = 0
        self.args = [Val(self, f"%{p}", kind.split()[0]) for kind, p in params]

    # -- instructions -----------------------------------------------------------------------
    def line(self, text: str, kind: str, lanes: int = 0) -> Val:
        """Append one instruction with a result."""
        self._count += 1
        ref = f"%v{self._count}"
        self._lines.append(f"  {ref} = {text}")
        return Val(self, ref, kind, lanes)

    def effect(self, text: str) -> None:
        """Append one instruction without a result."""
        self._lines.append(f"  {text}")

    def const(self, kind: str, value: float, lanes: int = 0) -> Val:
        """Make a constant, splatted over `lanes`."""
        literal = literal_text(kind, value)
        ref = f"splat ({type_text(kind)} {literal})" if lanes else literal
        return Val(self, ref, kind, lanes)

    def iota(self, kind: str, lanes: int) -> Val:
        """Make the vector 0, 1, ..., lanes - 1."""
        items = ", ".join(f"{kind} {i}" for i in range(lanes))
        return Val(self, f"<{items}>", kind, lanes)

    def undef(self, kind: str, lanes: int = 0) -> Val:
        """Make a value whose content nobody reads."""
        return Val(self, "poison", kind, lanes)

    def call(self, name: str, args: Sequence[Val], kind: str = "void", lanes: int = 0) -> Val:
        """Call a declared function or intrinsic, declaring it on first use."""
        result = "void" if kind == "void" else type_text(kind, lanes)
        self.module.declare(name, result, [type_text(a.kind, a.lanes) for a in args])
        text = f"call {result} @{name}({', '.join(a.text for a in args)})"
        if kind == "void":
            self.effect(text)
            return Val(self, "void", "void")
        return self.line(text, kind, lanes)

    def intrinsic(self, name: str, *args: Val) -> Val:
        """Call `llvm.<name>` overloaded on its first operand."""
        first = args[0]
        full = f"llvm.{name}.{suffix_text(first.kind, first.lanes)}"
        return self.call(full, args, first.kind, first.lanes)

    def count_zeros(self, name: str, x: Val) -> Val:
        """Call `llvm.ctlz` or `llvm.cttz`; of zero they give the width."""
        full = f"llvm.{name}.{suffix_text(x.kind, x.lanes)}"
        return self.call(full, (x, Val(self, "false", "i1")), x.kind, x.lanes)

    # -- memory -----------------------------------------------------------------------------
    def slot(self, kind: str, lanes: int = 0, *, start: float | None = None) -> Val:
        """Reserve a stack slot for a mutable value, which the function begins with."""
        self._count += 1
        ref = f"%s{self._count}"
        # In memory, as `store` writes it, a mask has a byte an element.
        held = type_text("i8" if kind == "i1" else kind, lanes)
        self._entry.append(f"  {ref} = alloca {held}, align 64")
        if start is not None:
            value = self.const("i8" if kind == "i1" else kind, start, lanes)
            self._entry.append(f"  store {value.text}, ptr {ref}")
        return Val(self, ref, "ptr")

    def load(self, ptr: Val, kind: str, lanes: int = 0, *, align: int = 0) -> Val:
        """Load a value; alignment defaults to the element's."""
        if kind == "i1":
            return self.load(ptr, "i8", lanes).cmp("ne", 0)
        at = align or BITS[kind] // 8
        return self.line(f"load {type_text(kind, lanes)}, {ptr.text}, align {at}", kind, lanes)

    def store(self, value: Val, ptr: Val, *, align: int = 0) -> None:
        """Store a value; alignment defaults to the element's."""
        if value.kind == "i1":
            self.store(value.zext("i8"), ptr)
            return
        self.effect(f"store {value.text}, {ptr.text}, align {align or BITS[value.kind] // 8}")

    def masked_load(self, ptr: Val, mask: Val, other: Val) -> Val:
        """Load the lanes where the mask is set; the others keep `other`.

        Where a mask is known to have one lane on, LLVM 22 compares that lane alone, and takes those
        of 0 for unequal to all, also where 0 / 0 is compared: it is not to see what is 0.
        """
        kind, lanes = other.kind, other.lanes
        if self.isa.has_mask_moves and kind in _MASK_MOVES:
            loaded = self._mask_move(ptr, mask, kind)
            if other.ref != self.const(kind, 0, lanes).ref:
                loaded = mask.where(loaded, other)
        else:
            name = f"llvm.masked.load.{suffix_text(kind, lanes)}.p0"
            ty = type_text(kind, lanes)
            self.module.declare(name, ty, ["ptr", f"<{lanes} x i1>", ty])
            at = f"ptr align {BITS[kind] // 8} {ptr.ref}"
            text = f"call {ty} @{name}({at}, {mask.text}, {other.text})"
            loaded = self.line(text, kind, lanes)
        return self.intrinsic("arithmetic.fence", loaded) if loaded.is_float else loaded

    def _mask_move(self, ptr: Val, mask: Val, kind: str) -> Val:
        """Load masked lanes, 0 elsewhere, by AVX2's instruction, 128 or 256 bits at a time.

        LLVM 22 makes an unmasked load of its general one where its instruction selection for AVX2
        finds a register's mask to be all off: that reads past the end of arrays. The mask is not a
        plain sign extension because LLVM would turn that back into the general one.
        """
        lanes, bits = mask.lanes, BITS[kind]
        if lanes * bits > _AVX_BITS:
            half = lanes // 2
            low = self._mask_move(ptr, mask.shuffle(range(half)), kind)
            after = ptr.offset(half * bits // 8)
            high = self._mask_move(after, mask.shuffle(range(half, lanes)), kind)
            return low.shuffle(range(lanes), high)
        width = max(lanes, _AVX_BITS // 2 // bits)
        if width > lanes:
            off = self.const("i1", 0, lanes)
            mask = mask.shuffle([min(i, lanes) for i in range(width)], off)
        signs = mask.zext(f"i{bits}") << bits - 1
        suffix = ".256" if width * bits == _AVX_BITS else ""
        loaded = self.call(f"llvm.x86.{_MASK_MOVES[kind]}{suffix}", (ptr, signs), kind, width)
        return loaded.shuffle(range(lanes)) if width > lanes else loaded

    def masked_store(self, value: Val, ptr: Val, mask: Val) -> None:
        """Store the lanes where the mask is set."""
        if self.isa.has_wide_masks and value.kind in ("i8", "i16"):
            value, mask = self._apart(value, mask)
        kind, lanes = value.kind, value.lanes
        name = f"llvm.masked.store.{suffix_text(kind, lanes)}.p0"
        self.module.declare(name, "void", [type_text(kind, lanes), "ptr", f"<{lanes} x i1>"])
        at = f"ptr align {BITS[kind] // 8} {ptr.ref}"
        self.effect(f"call void @{name}({value.text}, {at}, {mask.text})")

    def _apart(self, value: Val, mask: Val) -> tuple[Val, Val]:
        """Return the same numbers, whose making LLVM will not merge with their masked store.

        LLVM 22 merges a truncation with it, and stores a single lane as wide as it was before.
        """
        few, lanes = value.lanes, max(value.lanes, 32 // BITS[value.kind])
        if lanes > few:
            order, off = [min(i, few) for i in range(lanes)], self.const("i1", 0, few)
            value, mask = value.shuffle(order, value), mask.shuffle(order, off)
        ty, floats = type_text(value.kind, lanes), lanes * BITS[value.kind] // 32
        wide = self.line(f"bitcast {value.text} to <{floats} x float>", "f32", floats)
        kept = self.intrinsic("arithmetic.fence", wide)
        return self.line(f"bitcast {kept.text} to {ty}", value.kind, lanes), mask

    def gather(self, ptrs: Val, mask: Val, other: Val) -> Val:
        """Load one element per lane from a vector of addresses."""
        kind, lanes = other.kind, other.lanes
        name = f"llvm.masked.gather.{suffix_text(kind, lanes)}.v{lanes}p0"
        ty = type_text(kind, lanes)
        self.module.declare(name, ty, [f"<{lanes} x ptr>", f"<{lanes} x i1>", ty])
        at = f"<{lanes} x ptr> align {BITS[kind] // 8} {ptrs.ref}"
        return self.line(f"call {ty} @{name}({at}, {mask.text}, {other.text})", kind, lanes)

    def scatter(self, value: Val, ptrs: Val, mask: Val) -> None:
        """Store one element per lane to a vector of addresses, lowest lane first."""
        kind, lanes = value.kind, value.lanes
        name = f"llvm.masked.scatter.{suffix_text(kind, lanes)}.v{lanes}p0"
        self.module.declare(
            name, "void", [type_text(kind, lanes), f"<{lanes} x ptr>", f"<{lanes} x i1>"]
        )
        at = f"<{lanes} x ptr> align {BITS[kind] // 8} {ptrs.ref}"
        self.effect(f"call void @{name}({value.text}, {at}, {mask.text})")

    def prefetch(self, ptr: Val) -> None:
        """Ask for the cache line of an address, which need not be one of the program's."""
        self.module.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
        self.effect(f"call void @llvm.prefetch.p0(ptr {ptr.ref}, i32 0, i32 2, i32 1)")

    def compiler_fence(self) -> None:
        """Keep LLVM from moving memory accesses across this place."""
        self.effect('fence syncscope("singlethread") seq_cst')

    # -- control ----------------------------------------------------------------------------
    def _label(self) -> str:
        self._count += 1
        return f"b{self._count}"

    def _open(self, label: str) -> None:
        self._lines.append(f"{label}:")

    @contextmanager
    def loop(
        self, start: Val | int, stop: Val | int, step: Val | int = 1, kind: str = "i64",
        *, rolled: bool = False,
    ) -> Iterator[Val]:  # fmt: skip
        """Run the body for a counter from `start` while it is below `stop` (signed).

        A `rolled` loop stays one: LLVM does not write its body out several times.
        """
        first, last, by = (
            x if isinstance(x, Val) else self.const(kind, x) for x in (start, stop, step)
        )
        counter = self.slot(kind)
        self.store(first, counter)
        with self.while_(lambda: self.load(counter, kind).lt(last), rolled=rolled):
            index = self.load(counter, kind)
            yield index
            self.store(index + by, counter)

    @contextmanager
    def while_(self, condition: Callable[[], Val], *, rolled: bool = False) -> Iterator[None]:
        """Run the body while the condition, evaluated anew each time, holds."""
        head, body, after = self._label(), self._label(), self._label()
        self.effect(f"br label %{head}")
        self._open(head)
        self.effect(f"br {condition().text}, label %{body}, label %{after}")
        self._open(body)
        yield
        self.effect(f"br label %{head}" + (self.module.rolled_loop() if rolled else ""))
        self._open(after)

    @contextmanager
    def if_(self, condition: Val) -> Iterator[None]:
        """Run the body if the condition holds."""
        body, after = self._label(), self._label()
        self.effect(f"br {condition.text}, label %{body}, label %{after}")
        self._open(body)
        yield
        self.effect(f"br label %{after}")
        self._open(after)

    @contextmanager
    def if_else(self, condition: Val) -> Iterator[Callable[[], None]]:
        """Run the body up to the call of what is yielded if the condition holds, else the rest."""
        then, other, after = self._label(), self._label(), self._label()
        self.effect(f"br {condition.text}, label %{then}, label %{other}")
        self._open(then)

        def otherwise() -> None:
            self.effect(f"br label %{after}")
            self._open(other)

        yield otherwise
        self.effect(f"br label %{after}")
        self._open(after)

    def leave(self) -> None:
        """Return from the function at once; what is appended next is not reached from here."""
        self.effect("ret void")
        self._open(self._label())

    def finish(self, attributes: str = "") -> None:
        """Return from the function and add it to its module."""
        params = []
        for kind, name in self._params:
            base, *flags = kind.split()
            params.append(" ".join([type_text(base), *flags, f"%{name}"]))
        body = "\n".join([*self._entry, *self._lines, "  ret void"])
        head = f"define void @{self._name}({', '.join(params)}) nounwind {attributes}"
        self.module.finish(f"{head} {{\nentry:\n{body}\n}}")
