"""Experts that a checkpoint keeps in one tensor, as gpt-oss does, under a name for each.

Shapes: E experts of inner width I, H hidden.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["one_by_one"]

_PACKED = re.compile(r"(.*\.experts)\.(gate_up|down)_proj(|_bias|_blocks|_scales)")
_KINDS = {"": "weight", "_bias": "bias", "_blocks": "weight_blocks", "_scales": "weight_scales"}
_PARTS = {"gate_up": (("gate_proj", slice(0, None, 2)), ("up_proj", slice(1, None, 2))),
          "down": (("down_proj", slice(None)),)}  # fmt: skip
_BLOCK_AXES = 3


def one_by_one(files: Mapping[str, Any]) -> dict[str, Any]:
    """Return the files that tensors are in by their names, experts that are packed one by one.

    Packed are `gate_up_proj` [E, H, 2 I] and `down_proj` [E, I, H], with a gate in each even column
    and an up projection in each odd one, or what MXFP4 makes of their transposes: `*_blocks` and
    `*_scales`. Such experts have biases, by which they are told from those of other families.
    Expert 3's are then `experts.3.gate_proj.weight`, `.weight_blocks`, `.weight_scales`, `.bias`.
    """
    made = dict[str, Any]()
    for name, file in files.items():
        found = _PACKED.fullmatch(name)
        if found is None or f"{found[1]}.{found[2]}_proj_bias" not in files:
            made[name] = file
            continue
        for expert in range(file.get_slice(name).get_shape()[0]):
            for part, rows in _PARTS[found[2]]:
                own = f"{found[1]}.{expert}.{part}.{_KINDS[found[3]]}"
                made[own] = _Expert(file, name, expert, rows, is_weight=not found[3])
    return made


@dataclass(frozen=True, slots=True)
class _Expert:
    """A file that has one tensor: the rows of one of an expert's projections."""

    file: Any
    name: str
    expert: int
    rows: slice
    is_weight: bool

    def get_tensor(self, _: str) -> torch.Tensor:
        """Return it, of blocks all bytes of a row as one."""
        own: torch.Tensor = self.file.get_slice(self.name)[self.expert : self.expert + 1][0]
        if self.is_weight:
            own = own.T
        rows = own[self.rows]
        return (rows.flatten(1) if rows.dim() == _BLOCK_AXES else rows).contiguous()
