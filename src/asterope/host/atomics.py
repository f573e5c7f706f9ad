"""Atomics: one machine instruction, or one compare-and-exchange loop, an element, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asterope.host.access import tile_addresses
from asterope.host.arithmetic import combine
from asterope.host.values import At, Buffer, Lazy, from_storage, to_storage
from asterope.ir import Op, Type, data_of, pointer_of
from asterope.native import BITS, Function, Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["atomic"]

# LLVM's name of each order, and of the order when a compare-and-exchange fails and writes nothing.
_ORDERS = {
    "relaxed": ("monotonic", "monotonic"),
    "acquire": ("acquire", "acquire"),
    "release": ("release", "monotonic"),
    "acq_rel": ("acq_rel", "acquire"),
}
_INSTRUCTIONS = {
    "add": "add", "and": "and", "or": "or", "xor": "xor", "exchange": "xchg",
    "mins": "min", "maxs": "max", "minu": "umin", "maxu": "umax",
}  # fmt: skip

# One access of one element: the address and the values in storage form give the old storage form.
_Access = Callable[[Val, list[Val]], Val]


def atomic(low: Lowering, op: Op) -> None:
    """Translate an atomic; what was loaded before it stays as it was before it."""
    low.settle_loads()
    for operand in op.operands:
        state = low.env[operand]
        if isinstance(state, Lazy) and state.has_load:
            low.materialise(operand)
    type_ = op.result.type
    access = _cas(low.fn, op) if op.name == "atomic_cas" else _rmw(low.fn, op)
    if not type_.shape:
        values = [to_storage(low.scalar(v), type_) for v in data_of(op)]
        address = low.scalar(pointer_of(op))
        mask = low.scalar(op.operands[2]) if op.attrs.get("mask") else None
        low.env[op.result] = from_storage(_where_on(low.fn, mask, access, address, values), type_)
        return
    result = low.new_buffer(type_)
    with low.nest(type_.shape) as at:
        _chunk(low, op, access, at, result)
    low.env[op.result] = result


def _chunk(low: Lowering, op: Op, access: _Access, at: At, result: Buffer) -> None:
    """Access the elements of a chunk, in a loop over its lanes."""
    fn, type_ = low.fn, op.result.type
    addresses, mask = _addresses(low, op, at)
    values = [to_storage(low.evaluate(v, at).vector(at.lanes), type_) for v in data_of(op)]
    vectors = [addresses, *values] + ([mask] if mask is not None else [])
    index = list(at.index)
    with _each_lane(fn, vectors) as (lane, (address, *given)):
        on = given.pop() if mask is not None else None
        old = from_storage(_where_on(fn, on, access, address, given), type_)
        index[at.lane] = at.index[at.lane] + lane
        fn.store(old, result.address(tuple(index)))


@contextmanager
def _each_lane(fn: Function, vectors: list[Val]) -> Iterator[tuple[Val, list[Val]]]:
    """Run the body for each lane of some vectors, taking them through memory."""
    lanes = vectors[0].lanes
    if lanes == 1:
        # LLVM 22 fails on a vector of one address that went through memory.
        yield fn.const("i64", 0), [v.lane(0) for v in vectors]
        return
    slots = [fn.slot(v.kind, lanes) for v in vectors]
    for vector, slot in zip(vectors, slots, strict=True):
        fn.store(vector, slot)
    with fn.loop(0, lanes) as lane:
        yield (
            lane,
            [
                fn.load(slot.offset(lane * max(1, BITS[v.kind] // 8)), v.kind)
                for v, slot in zip(vectors, slots, strict=True)
            ],
        )


def _addresses(low: Lowering, op: Op, at: At) -> tuple[Val, Val | None]:
    if op.name == "atomic_rmw_tile":
        return tile_addresses(low, op, op.operands[1:], op.result.type, at)
    mask = None
    if op.attrs.get("mask"):
        mask = low.evaluate(op.operands[2], at).vector(at.lanes)
    return low.evaluate(pointer_of(op), at).vector(at.lanes), mask


def _where_on(
    fn: Function, on: Val | None, access: _Access, address: Val, values: list[Val]
) -> Val:
    """Access an element if it is on; one that is off gives 0."""
    if on is None:
        return access(address, values)
    kind = values[0].kind
    slot = fn.slot(kind)
    fn.store(fn.const(kind, 0), slot)
    with fn.if_(on):
        fn.store(access(address, values), slot)
    return fn.load(slot, kind)


# -- one element ----------------------------------------------------------------------------------
def _rmw(fn: Function, op: Op) -> _Access:
    name, element = str(op.attrs["combine"]), Type(op.result.type.elem)
    order, _ = _ORDERS[str(op.attrs["memory_order"])]

    def instruction(address: Val, values: list[Val]) -> Val:
        (value,) = values
        bits = value.bits_as(f"i{BITS[value.kind]}")
        text = f"atomicrmw {_INSTRUCTIONS[name]} {address.text}, {bits.text} {order}"
        return fn.line(text, bits.kind).bits_as(value.kind)

    def loop(address: Val, values: list[Val]) -> Val:
        (value,) = values
        operand = from_storage(value, element)

        def following(old: Val) -> Val:
            new = combine(name, element, from_storage(old, element), operand)
            return to_storage(new, element)

        return _until_written(fn, op, address, value.kind, following)

    return instruction if name in _INSTRUCTIONS else loop


def _cas(fn: Function, op: Op) -> _Access:
    def exchange(address: Val, values: list[Val]) -> Val:
        expected, value = (v.bits_as(f"i{BITS[v.kind]}") for v in values)
        old, _ = _compare_exchange(fn, op, address, expected, value)
        return old.bits_as(values[0].kind)

    return exchange


def _compare_exchange(
    fn: Function, op: Op, address: Val, expected: Val, value: Val
) -> tuple[Val, Val]:
    """Return the old bits, and whether they were the expected ones."""
    order, otherwise = _ORDERS[str(op.attrs["memory_order"])]
    text = f"cmpxchg {address.text}, {expected.text}, {value.text} {order} {otherwise}"
    both = fn.line(text, value.kind)
    pair = f"{{ {value.kind}, i1 }} {both.ref}"
    return (
        fn.line(f"extractvalue {pair}, 0", value.kind),
        fn.line(f"extractvalue {pair}, 1", "i1"),
    )


def _until_written(
    fn: Function, op: Op, address: Val, kind: str, following: Callable[[Val], Val]
) -> Val:
    """Replace what is at an address by what follows from it, trying until nobody was faster."""
    bits = f"i{BITS[kind]}"
    seen, is_done = fn.slot(bits), fn.slot("i1")
    first = f"load atomic {bits}, {address.text} monotonic, align {BITS[kind] // 8}"
    fn.store(fn.line(first, bits), seen)
    fn.store(fn.const("i1", 0), is_done)
    with fn.while_(lambda: ~fn.load(is_done, "i1")):
        expected = fn.load(seen, bits)
        value = following(expected.bits_as(kind)).bits_as(bits)
        old, was_expected = _compare_exchange(fn, op, address, expected, value)
        fn.store(old, seen)
        fn.store(was_expected, is_done)
    return fn.load(seen, bits).bits_as(kind)
