"""Macro-instructions: what one enqueued command asks of its engine, before any chip is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from asterope.ir import Engine

__all__ = ["Instruction", "LineWork", "Product", "Transfer", "VectorWork", "Work"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """A DMA between a memory (`space`: hbm, csram of the tile's cluster, or tsram) and TSRAM.

    Each execution brings its own key (equal keys are the same bytes) and number of bytes; a gather
    instead brings the bytes of a piece and the number of pieces, each of which costs a granule at
    least. A transfer that is `shared` reads memory that this kernel never writes, so tiles may
    pass it on to each other; only such a one has a key. One that is `pinned` stays in CSRAM while
    others pass through. Of a block, `run_bytes` lie together.
    """

    gather: bool
    shared: bool
    space: str = "hbm"
    run_bytes: int = 1
    pinned: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """Matrix products of [m, k] by [k, n]: one, or a batch; `a` and `b` are the element formats.

    With an element of a and one of b come `scale_bits` of the scales of their blocks.
    """

    m: int
    n: int
    k: int
    a: str
    b: str
    batch: int = 1
    scale_bits: float = 0.0

    @property
    def macs(self) -> int:
        """Multiply-adds in all."""
        return self.batch * self.m * self.n * self.k


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorWork:
    """Elementwise work, by class: how many element operations of each.

    Classes: op16, op32 (64-bit elements count twice), function16, function32, move16, move32.
    """

    counts: Mapping[str, int] = field(default_factory=dict)


Work = Transfer | Product | VectorWork


@dataclass(frozen=True, kw_only=True, slots=True)
class LineWork:
    """What one source line adds to a vector instruction."""

    loc: str
    name: str
    work: VectorWork


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """One kind of macro-instruction of a program.

    `depth` is how many results one program has at once: its next execution may start while that
    many earlier results are still being read. `bytes` is the TSRAM that one result takes. `lines`
    says of vector work which source line asked for how much by which ops. It waits for so many
    `semaphores`, and signals as many. `bytes_read` and `bytes_written` are what an engine moves
    through TSRAM's ports, but for the operands of products, which the chip decides.
    """

    engine: Engine
    label: str
    loc: str
    work: Work
    depth: int
    bytes: int
    lines: tuple[LineWork, ...] = ()
    semaphores: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
