"""Kernels of tensor descriptors that several tests launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["ROWS", "copy_2d", "copy_3d", "gather_rows", "same"]

# Rows to pick: some twice, some outside.
ROWS = torch.tensor([3, 0, 19, 3, -1, 20, 7, 1 << 30], dtype=torch.int32)


def same(a, b):
    """Whether two tensors hold the same bytes."""
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


@triton.jit
def copy_2d(source, target, a, b, to):
    target.store([to, 0], source.load([a, b]))


@triton.jit
def copy_3d(source, target, a, b, c, to):
    target.store([to, 0, 0], source.load([a, b, c]))


@triton.jit
def gather_rows(x, rows, out, height, width, at, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    source = tl.make_tensor_descriptor(x, [height, width], [width, 1], [1, COLUMNS])
    picked = source.gather(tl.load(rows + tl.arange(0, ROWS)), at)
    target = tl.make_tensor_descriptor(out, [ROWS, COLUMNS], [COLUMNS, 1], [ROWS, COLUMNS])
    target.store([0, 0], picked)
