"""Which assumption about a chip moves which prediction, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from asterope import chips
from asterope.api.product import time_product
from asterope.api.progress import Progress, silent
from asterope.chips import Chip, Confidence, FigureRow
from asterope.errors import CapacityError, ChipError, ConfigError
from asterope.kernels import attention, silu_mul
from asterope.operators import collective
from asterope.quant import scheme
from asterope.runtime import simulate
from asterope.units import MIB

__all__ = ["PREDICTIONS", "Sensitivity", "vary_figures"]

_TIMED = ("clock_hz", "launch_overhead_s", "tile.", "cluster.", "noc.", "hbm.", "network.")
_OPEN = (Confidence.ASSUMED, Confidence.CALIBRATED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """A figure that is not public, and what times become with less and with more of it.

    `changes` has for each prediction the relative change of its time with `low` and with `high` in
    the figure's place, None where the chip or the kernel is not possible so. `effect` is the
    largest of them.
    """

    figure: str
    value: float
    unit: str
    confidence: str
    low: float
    high: float
    changes: Mapping[str, tuple[float | None, float | None]]

    @property
    def effect(self) -> float:
        """Return the largest relative change of a time, up or down."""
        moved = (abs(c) for pair in self.changes.values() for c in pair if c is not None)
        return max(moved, default=0.0)


def _product(m: int, n: int, k: int, weights: str, activations: str) -> Callable[[Chip], float]:
    kind = scheme(weights, activations=activations)
    return lambda chip: time_product(chip, m, n, k, kind).time_s


def _launched(run: Callable[[], object]) -> Callable[[Chip], float]:
    def time_s(chip: Chip) -> float:
        with simulate(chip, values=False) as timeline:
            run()
        return timeline.time_s

    return time_s


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="meta")


def _decode_attention() -> torch.Tensor:
    batch, kv_heads, share, context, dim = 8, 8, 8, 1024, 128
    cache = _empty(batch, kv_heads, context, dim)
    query = _empty(batch, kv_heads * share, dim)
    return attention(query, cache, cache, past=context - 1, scale=dim**-0.5)


PREDICTIONS: Mapping[str, Callable[[Chip], float]] = {
    "gemm fp4": _product(4096, 4096, 2048, "mxfp4", "same"),
    "gemm fp8": _product(4096, 4096, 2048, "fp8", "fp8"),
    "gemm bf16": _product(4096, 4096, 2048, "bf16", "bf16"),
    "gemm of 16 rows": _product(16, 8192, 4096, "bf16", "bf16"),
    "attention": _launched(_decode_attention),
    "elementwise": _launched(lambda: silu_mul(_empty(2048, 8192))),
    "all-reduce": lambda chip: collective(chip, "all_reduce", 8 * MIB, 4).time_s,
}
"""What is timed: large products, one that waits for memory, a decode step's attention, a gate, a
sum over a tray."""


def vary_figures(
    chip: Chip, *, factor: float = 2.0, progress: Progress = silent
) -> tuple[Sensitivity, ...]:
    """Vary each figure that is not public to its `factor`-th part and to its `factor`-fold.

    Figures that are assumed or calibrated and belong to what the tile simulation describes are
    varied one by one, the kernels staying what they are. The most telling comes first.

    Raises: ChipError if the inside of the chip is not described; ConfigError for a factor of one
    or less.
    """
    chip.inside()
    if not factor > 1:
        raise ConfigError(
            f"{factor:g} is not more than 1", where="factor", hint="2 halves, doubles"
        )
    rows = list(_open_figures(chip))
    before = _times(chip)
    found = []
    for index, row in enumerate(rows):
        progress("vary figures", index, len(rows))
        found.append(_varied(chip, row, factor, before))
    progress("vary figures", len(rows), len(rows))
    return tuple(sorted(found, key=lambda one: (-one.effect, one.figure)))


def _open_figures(chip: Chip) -> Iterator[FigureRow]:
    for row in chips.figures(chip):
        is_number = isinstance(row.value, (int, float)) and not isinstance(row.value, bool)
        if row.confidence in _OPEN and row.path.startswith(_TIMED) and is_number and row.value:
            yield row


def _varied(chip: Chip, row: FigureRow, factor: float, before: Mapping[str, float]) -> Sensitivity:
    assert isinstance(row.value, (int, float))
    low, less = _replaced(chip, row.path, _scaled(row.value, 1 / factor))
    high, more = _replaced(chip, row.path, _scaled(row.value, factor))
    with_less, with_more = _times(less), _times(more)
    return Sensitivity(
        figure=row.path, value=row.value, unit=row.unit, confidence=str(row.confidence),
        low=low, high=high,
        changes={
            name: (_change(with_less.get(name), time_s), _change(with_more.get(name), time_s))
            for name, time_s in before.items()
        },
    )  # fmt: skip


def _scaled(value: float, factor: float) -> float:
    """Scale a figure: a count stays whole and at least one."""
    return max(1, round(value * factor)) if isinstance(value, int) else value * factor


def _replaced(chip: Chip, path: str, value: float) -> tuple[float, Chip | None]:
    """Change a figure; a share is at most 1. None if there can be no such chip."""
    for possible in (value, 1.0) if value > 1 else (value,):
        try:
            return possible, chips.replace(chip, {path: possible})
        except ChipError:
            continue
    return value, None


def _times(chip: Chip | None) -> dict[str, float]:
    """Return the times of the predictions whose kernels fit and whose links are described."""
    found: dict[str, float] = {}
    if chip is None:
        return found
    for name, time_s in PREDICTIONS.items():
        try:
            found[name] = time_s(chip)
        except (CapacityError, ChipError):
            continue
    return found


def _change(after_s: float | None, before_s: float) -> float | None:
    return None if after_s is None else after_s / before_s - 1
