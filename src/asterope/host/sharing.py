"""Blocks that several consumers need: computed once, where possible by the first on its way.

A shared block stays delayed until somebody needs it. A nest that goes over all its elements, as a
reduction does, writes them to a buffer while it has them in registers; whoever comes later reads
that. If nobody comes later, no buffer is written at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asterope.host.walk import visits
from asterope.ir import Value

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["settle_shared", "settle_yielded", "sharing"]


@contextmanager
def sharing(
    low: Lowering,
    roots: Sequence[Value],
    shape: tuple[int, ...],
    lane: int,
    *,
    is_whole: bool = True,
) -> Iterator[None]:
    """Keep shared blocks that a nest over a shape comes by and that are needed later.

    A nest over the `is_whole` shape writes them to buffers as it goes. What another nest, or this
    one at other places than its own, would compute again is put into buffers before.
    """
    own = tuple(range(len(shape)))
    found = [v for v in visits(low, [(r, own) for r in roots]) if v.value in low.shared]
    # A mask may be known without being computed, so a nest does not always come by it.
    elsewhere = {v.value for v in found if v.dims != own or v.value.type.elem == "i1"}
    here = {v.value: None for v in found if v.value not in elsewhere}
    later = low.closure(low.needed[-1], kept=here.keys())
    passed = [value for value in here if value in later]
    for value in reversed([v.value for v in found]):
        if value in elsewhere or (value in passed and not is_whole):
            low.materialise(value)
    kept = {v: low.new_buffer(v.type, lane) for v in passed if v in low.shared}
    around, low.through = low.through, kept
    yield
    low.through = around
    low.env.update(kept)
    low.shared -= kept.keys()


def settle_shared(low: Lowering, values: Iterable[Value]) -> None:
    """Put the shared blocks that values are computed from into buffers."""
    reached = low.closure(set(values))
    for value in [v for v in low.env if v in reached and v in low.shared]:
        low.materialise(value)


def settle_yielded(low: Lowering, values: Sequence[Value]) -> None:
    """Put the blocks that several of a block's last values share into buffers.

    What only one of them is computed from stays delayed: it is computed where that one goes.
    """
    reached = [low.closure({v}) for v in values]
    for value in [v for v in low.env if v in low.shared]:
        if sum(value in inside for inside in reached) > 1:
            low.materialise(value)
