"""Does a program fit into a tile's scratchpad, and if not, what is in the way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from asterope.chips import Tile
from asterope.errors import CapacityError
from asterope.ir import OPS, Block, Engine, Kernel, Value

__all__ = ["Need", "require_fit", "tsram_need"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """The most TSRAM a program needs at one moment, and the largest block alive then."""

    num_bytes: int
    largest: str
    largest_bytes: int
    loc: str

    def programs_at_once(self, tile: Tile) -> int:
        """Return how many programs a tile has in TSRAM at once: what fits, up to one a DMA channel.

        The next program's loads may then start while this one computes. That compilers for the
        chip use its TSRAM so is an assumption; it is sized for loads that are long under way.
        """
        room = tile.tsram.capacity_bytes // max(1, self.num_bytes)
        return max(1, min(room, tile.dma.channels))


def tsram_need(kernel: Kernel, control: Collection[Value]) -> Need:
    """Add up the blocks alive at each op; what loops load counts `num_stages` times in them."""
    usual = int(kernel.attrs.get("num_stages", 1))
    return _block_need(kernel.body, {}, control, usual, usual, looped=False)


def _is_held(value: Value, control: Collection[Value]) -> bool:
    """Whether a value takes TSRAM: blocks that engines produce, not addresses or constants."""
    if not value.type.shape or value in control or value.type.is_ptr:
        return False
    return value.op is None or OPS[value.op.name].cost != "free" or OPS[value.op.name].engine in (
        Engine.LOAD,
        Engine.STORE,
        Engine.TENSOR,
    )  # fmt: skip


def _bytes(value: Value, stages: int, *, looped: bool) -> int:
    is_load = value.op is not None and OPS[value.op.name].engine is Engine.LOAD
    return value.type.num_bytes * (stages if is_load and looped else 1)


def _block_need(
    block: Block, outer: Mapping[Value, int], control: Collection[Value], stages: int,
    usual: int, *, looped: bool,
) -> Need:  # fmt: skip
    last_use = {v: i for i, op in enumerate(block.ops) for q in op.walk() for v in q.operands}

    def sizes(values: Iterable[Value]) -> dict[Value, int]:
        return {v: _bytes(v, stages, looped=looped) for v in values if _is_held(v, control)}

    alive = {**outer, **sizes(block.args)}
    need = _need_of(alive)
    for i, op in enumerate(block.ops):
        for inner in op.blocks if op.is_control_flow else ():
            carried = {
                v: size for v, size in alive.items()
                if last_use.get(v, -1) >= i and v not in op.operands[3:]
            }  # fmt: skip
            deep = stages if op.name == "if" else int(op.attrs.get("num_stages", usual))
            inside = looped or op.name != "if"
            found = _block_need(inner, carried, control, deep, usual, looped=inside)
            need = max(need, found, key=lambda n: n.num_bytes)
        alive = {v: s for v, s in alive.items() if v in outer or last_use.get(v, -1) > i}
        alive |= sizes(r for r in op.results if last_use.get(r, -1) > i)
        need = max(need, _need_of(alive), key=lambda n: n.num_bytes)
    return need


def _need_of(alive: Mapping[Value, int]) -> Need:
    if not alive:
        return Need(num_bytes=0, largest="", largest_bytes=0, loc="")
    value, size = max(alive.items(), key=lambda item: item[1])
    loc = value.op.loc if value.op is not None else ""
    name = f"{value.hint} {value.type}".strip()
    return Need(num_bytes=sum(alive.values()), largest=name, largest_bytes=size, loc=loc)


def require_fit(need: Need, capacity_bytes: int, kernel: str, stages: int) -> None:
    """Refuse a program whose blocks do not fit.

    Raises: CapacityError with the bytes asked and there, the largest block and its line.
    """
    if need.num_bytes <= capacity_bytes:
        return
    fewer = "fewer num_stages or " if stages > 1 else ""
    raise CapacityError(
        f"{kernel} needs {need.num_bytes} bytes of a tile's TSRAM of {capacity_bytes}; "
        f"the largest block is {need.largest}, {need.largest_bytes} bytes",
        where=need.loc or kernel,
        hint=f"use {fewer}smaller blocks; half the largest frees {need.largest_bytes // 2}",
    )
