"""Random expressions of a wanted element type and shape, all of them exact."""

from __future__ import annotations

from triton_fuzz.elements import ELEMENTS, FLOATS, INTEGERS
from triton_fuzz.memory import load

__all__ = ["constant", "expression", "leaf"]

BOOL, INT32 = ELEMENTS["int1"], ELEMENTS["int32"]
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")


def expression(d, elem, shape, depth):
    """Return text that has the element type and the whole shape."""
    if depth <= 0 or d.chance(8):
        return leaf(d, elem, shape)
    ways = {"b": _boolean, "i": _integer, "u": _integer, "f": _float, "8": _fp8}
    return ways[elem.kind](d, elem, shape, depth)


def leaf(d, elem, shape):
    """Return a value in scope, or one from memory."""
    found = d.find(elem, shape)
    if found and d.chance(85):
        return d.one_of(found[-6:]).name
    if shape == () and elem == INT32 and d.chance(50):
        return f"tl.program_id({d.below(2)})"
    if elem == INT32 and len(shape) == 1 and d.chance(30):
        return f"tl.arange(0, {shape[0]})"
    if elem.kind in "iuf" and d.chance(10):
        return f"tl.full({_text(shape)}, {constant(d, elem)}, tl.{elem.name})"
    return load(d, elem, shape).name


def _text(shape):
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def constant(d, elem):
    """Return a number that the element type holds."""
    if elem.kind == "b":
        return d.one_of(["True", "False"])
    if elem.kind == "f":
        return d.one_of(["0.0", "1.0", "-0.5", "3.0", "0.125", "-2.0", "1.5"])
    numbers = [0, 1, 2, 3, 7, 100, 127] + ([-1, -3, -128] if elem.kind == "i" else [128, 255])
    wider = [1 << (elem.bits - 2), (1 << (elem.bits - 1)) - 1] if elem.bits < 64 else [1 << 33]
    return str(d.one_of(numbers if d.chance(80) else wider))


def operand(d, elem, shape, depth):
    """Return the right operand: an expression, a constant, or something that broadcasts."""
    if d.chance(20):
        number = constant(d, elem)
        return f"({number})" if number[0] == "-" else number
    if d.chance(25):
        narrow = _broadcast(d, elem, shape)
        if narrow is not None:
            return narrow
    return expression(d, elem, shape, depth - 1)


def _broadcast(d, elem, shape):
    """Return a scalar, or a row or column with a place for each dimension."""
    options = [v.name for v in d.find(elem, ())] if shape else []
    for axis, size in enumerate(shape):
        if len(shape) > 1:
            where = ", ".join(":" if i == axis else "None" for i in range(len(shape)))
            options += [f"{v.name}[{where}]" for v in d.find(elem, (size,))]
    fitting = [v.name for v in d.find(elem) if len(v.shape) == len(shape) and v.shape != shape]
    by_name = {v.name: v.shape for v in d.vars}
    options += [
        n for n in fitting if all(a in (1, b) for a, b in zip(by_name[n], shape, strict=True))
    ]
    return d.one_of(options) if options else None


def _choose(d, elem, shape, depth):
    chooser = expression(d, BOOL, shape, depth - 1)
    a, b = expression(d, elem, shape, depth - 1), operand(d, elem, shape, depth)
    return f"tl.where({chooser}, {a}, {b})" if d.chance(50) else f"tl.where({chooser}, {b}, {a})"


def _cast(d, elem, shape, depth):
    sources = [e for e in ELEMENTS.values() if e != elem and _converts(e, elem)]
    known = [e for e in sources if d.find(e, shape)]
    source = d.one_of(known) if known and d.chance(75) else d.one_of(sources)
    inner = expression(d, source, shape, depth - 1)
    same = source.bits == elem.bits and "b" not in (source.kind, elem.kind)
    if same and source.is_integer and d.chance(40):
        return f"({inner}).to(tl.{elem.name}, bitcast=True)"
    if same and source.kind == "f" and d.chance(40):
        # The bits of a NaN are nobody's promise.
        number = d.let(inner, source, shape).name
        return f"tl.where({number} == {number}, {number}, 0.0).to(tl.{elem.name}, bitcast=True)"
    return f"({inner}).to(tl.{elem.name})"


def _converts(source, to):
    if "8" in (source.kind, to.kind):
        return {source.kind, to.kind} == {"8", "f"}
    return True


def _boolean(d, elem, shape, depth):
    kind = d.weighted({"compare": 6, "logic": 3, "not": 1, "cast": 1})
    if kind == "logic":
        a, b = (expression(d, BOOL, shape, depth - 1) for _ in range(2))
        return f"({a} {d.one_of('&|^')} {b})"
    if kind == "not":
        return f"(~{expression(d, BOOL, shape, depth - 1)})"
    source = d.one_of([*INTEGERS, *FLOATS, *d.elems])
    source = INT32 if source.kind in "b8" else source
    known = [v.elem for v in d.find(None, shape) if v.elem.kind in "iuf"]
    source = d.one_of(known) if known and d.chance(80) else source
    if kind == "cast":
        return f"({expression(d, source, shape, depth - 1)}).to(tl.int1)"
    a, b = expression(d, source, shape, depth - 1), operand(d, source, shape, depth)
    return f"({a} {d.one_of(_COMPARISONS)} {b})"


def _integer(d, elem, shape, depth):
    kind = d.weighted(
        {"arith": 8, "bits": 4, "shift": 3, "divide": 3, "extreme": 2, "one": 2, "where": 3,
         "cast": 4, "high": 1}
    )  # fmt: skip
    if kind == "where":
        return _choose(d, elem, shape, depth)
    if kind == "cast":
        return _cast(d, elem, shape, depth)
    a = expression(d, elem, shape, depth - 1)
    if kind == "one":
        names = ["-{}", "~{}", "tl.abs({})"] if elem.kind == "i" else ["~{}"]
        return f"({d.one_of(names)})".format(a)
    b = operand(d, elem, shape, depth)
    if kind == "shift":
        if d.chance(50):
            b = str(d.below(elem.bits))
        elif d.chance(70) or _is_constant(b):
            b = f"({expression(d, elem, shape, depth - 1)} & {elem.bits - 1})"
        return f"({a} {d.one_of(['<<', '>>'])} {b})"
    if kind == "divide":
        return f"({a} {d.one_of(['//', '%'])} {b if b != '0' else '3'})"
    if kind == "extreme":
        return _extreme(d, elem, a, b, shape)
    if kind == "high" and elem.bits >= 32:
        return f"tl.umulhi({a}, {expression(d, elem, shape, depth - 1)})"
    signs = ["&", "|", "^"] if kind == "bits" else ["+", "-", "*"]
    return f"({a} {d.one_of(signs)} {b})"


def _float(d, elem, shape, depth):
    kind = d.weighted(
        {"arith": 9, "divide": 2, "extreme": 3, "one": 3, "where": 3, "cast": 4, "fma": 1}
    )
    if kind == "where":
        return _choose(d, elem, shape, depth)
    if kind == "cast":
        return _cast(d, elem, shape, depth)
    a = expression(d, elem, shape, depth - 1)
    wide = elem.bits >= 32
    if kind == "one":
        names = ["(-{})", "tl.abs({})"]
        names += ["tl.floor({})", "tl.ceil({})", "tl.sqrt({})"] * wide
        return d.one_of(names).format(a)
    b = operand(d, elem, shape, depth)
    if kind == "divide":
        sign = d.weighted({"/": 3, "%": 1})
        return f"({a} {sign} {b})" if wide else f"({a} {sign} {b}).to(tl.{elem.name})"
    if kind == "extreme":
        return _extreme(d, elem, a, b, shape)
    if kind == "fma" and elem.name == "float32":
        c = expression(d, elem, shape, depth - 1)
        return f"tl.fma({a}, {expression(d, elem, shape, depth - 1)}, {c})"
    return f"({a} {d.one_of('+-*')} {b})"


def _extreme(d, elem, a, b, shape):
    """Return the larger or the smaller; a bare constant would be an int32 or fp32 there.

    Triton's passes may exchange the two, and with them which of two zeros it is.
    """
    if _is_constant(b):
        b = f"tl.full({_text(shape)}, {b}, tl.{elem.name})"
    nan = ", propagate_nan=tl.PropagateNan.ALL" if elem.kind == "f" and d.chance(30) else ""
    zero = " + 0.0" if elem.kind == "f" else ""
    text = f"(tl.{d.one_of(['maximum', 'minimum'])}({a}, {b}{nan}){zero})"
    return f"{text}.to(tl.bfloat16)" if elem.name == "bfloat16" else text


def _is_constant(text):
    return text.strip("()").lstrip("-")[0].isdigit()


def _fp8(d, elem, shape, depth):
    return _cast(d, elem, shape, depth) if d.chance(70) else leaf(d, elem, shape)
