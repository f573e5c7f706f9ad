"""Ops that touch memory: which they are, and what each of their operands is."""

from __future__ import annotations

from asterope.ir.program import Op, Value

__all__ = [
    "ATOMICS",
    "READS",
    "WRITES",
    "address_operands",
    "data_of",
    "is_pinned",
    "is_volatile",
    "masks_of",
    "offsets_of",
    "pointer_of",
]

ATOMICS = frozenset({"atomic_rmw", "atomic_rmw_tile", "atomic_cas"})
READS = frozenset({"load", "load_tile"}) | ATOMICS
WRITES = frozenset({"store", "store_tile"}) | ATOMICS

# Of a tile the value comes first, then the base; of a block of pointers the pointers come first.
_POINTER_AT = {"store_tile": 1, "atomic_rmw_tile": 1}
_DATA_AT = {
    "store": (1,), "store_tile": (0,),
    "atomic_rmw": (1,), "atomic_rmw_tile": (0,), "atomic_cas": (1, 2),
}  # fmt: skip


def pointer_of(op: Op) -> Value:
    """Return the address, the block of addresses or the base of an access."""
    return op.operands[_POINTER_AT.get(op.name, 0)]


def data_of(op: Op) -> list[Value]:
    """Return the values that an access takes to memory."""
    return [op.operands[i] for i in _DATA_AT.get(op.name, ())]


def address_operands(op: Op) -> list[Value]:
    """Return what says where an access goes: pointers, offsets and masks."""
    data = _DATA_AT.get(op.name, ())
    last = len(op.operands) - bool(op.attrs.get("other"))
    return [v for i, v in enumerate(op.operands[:last]) if i not in data]


def offsets_of(op: Op) -> list[Value]:
    """Return the offset vectors of a tile's access, one a dimension."""
    first = _POINTER_AT.get(op.name, 0) + 1
    rank = len((op.result if op.results else op.operands[0]).type.shape)
    return op.operands[first : first + rank]


def masks_of(op: Op) -> dict[int, Value]:
    """Return the mask vectors of a tile's access by dimension."""
    first = _POINTER_AT.get(op.name, 0) + 1 + len(offsets_of(op))
    return dict(zip(op.attrs.get("mask_dims", ()), op.operands[first:], strict=False))


def is_pinned(op: Op) -> bool:
    """Whether what is read should stay in CSRAM rather than what other loads bring."""
    return bool(op.attrs.get("pinned"))


def is_volatile(op: Op) -> bool:
    """Whether a load must happen, where it stands and each time: others may write meanwhile."""
    return bool(op.attrs.get("volatile"))
