"""Where programs of attention leave their sums: the result, or parts put together in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from asterope.kernels.attention_cycles import AttentionShape, KeyBlocks
from asterope.kernels.key_blocks import choose_key_blocks

__all__ = ["KeyParts"]

_MERGED_ROWS = 4


@triton.jit
def _merge_parts_kernel(
    sums, bests, totals, out, num_rows, stride_part,
    PARTS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Add the parts of each row in ascending order, all relative to the row's maximum."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    offs_d = tl.arange(0, WIDTH)
    on = rows < num_rows
    on_d = on[:, None] & (offs_d < DIM)[None, :]
    best = tl.load(bests + rows, mask=on, other=0.0)
    for part in tl.static_range(1, PARTS):  # every row has seen a key in one of the parts
        best = tl.maximum(best, tl.load(bests + part * num_rows + rows, mask=on, other=0.0))
    at = rows[:, None].to(tl.int64) * DIM + offs_d[None, :]
    total = tl.zeros((ROWS,), dtype=tl.float32)
    acc = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for part in tl.static_range(PARTS):
        weight = tl.exp2(tl.load(bests + part * num_rows + rows, mask=on, other=0.0) - best)
        total += tl.load(totals + part * num_rows + rows, mask=on, other=1.0) * weight
        acc += tl.load(sums + at, mask=on_d, other=0.0) * weight[:, None]
        at += stride_part
    tl.store(out + rows[:, None].to(tl.int64) * DIM + offs_d[None, :],
             (acc / total[:, None]).to(out.dtype.element_ty), mask=on_d)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class KeyParts:
    """The blocks of one call of attention, and where its programs write.

    Shapes: out [rows, Hq V]; of more than one part, sums [parts, rows, Hq V] and bests, totals
    [parts, rows, Hq] in float32.
    """

    count: int
    blocks: KeyBlocks
    constants: Mapping[str, int]
    out: torch.Tensor
    sums: torch.Tensor
    bests: torch.Tensor | None
    totals: torch.Tensor | None

    @classmethod
    def of(cls, shape: AttentionShape, out: torch.Tensor) -> KeyParts:
        """Choose blocks for attention that writes `out`, and make room for its parts."""
        blocks = choose_key_blocks(shape)
        count, heads = blocks.parts(shape), shape.kv_heads * shape.share
        part = blocks.part_keys(shape) if count > 1 else 0
        constants = {"ROWS": blocks.rows, "KEYS": blocks.keys, "PART": part}
        if count == 1:
            return cls(1, blocks, constants, out, out, None, None)
        sums = torch.empty((count, *out.shape), dtype=torch.float32, device=out.device)
        bests, totals = sums.new_empty((2, count, out.shape[0], heads))
        return cls(count, blocks, constants, out, sums, bests, totals)

    @property
    def targets(self) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The kernel's arguments: sums, maxima they are relative to, totals of weights."""
        return self.sums, self.bests, self.totals

    def merge(self, dim: int) -> None:
        """Put the parts together, if there are several; heads have values of size `dim`."""
        if self.count == 1:
            return
        rows = self.out.numel() // dim
        _merge_parts_kernel[(triton.cdiv(rows, _MERGED_ROWS),)](
            self.sums, self.bests, self.totals, self.out, rows, self.out.numel(),
            PARTS=self.count, DIM=dim, ROWS=_MERGED_ROWS, WIDTH=triton.next_power_of_2(dim),
        )  # fmt: skip
