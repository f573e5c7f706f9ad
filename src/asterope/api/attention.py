"""The library's attention on a chip: its time, and the mappings of it that were considered."""

from __future__ import annotations

from dataclasses import dataclass

from asterope.api.heads import AttentionAsked
from asterope.api.launched import grids_in_words, lowest_clock_hz, parts_s
from asterope.api.operation import MappedTime, OperationTime
from asterope.chips import Chip
from asterope.kernels import ATTENDING, KeyBlocks, considered_keys, watched_choices
from asterope.runtime import Timeline, simulate
from asterope.sim import Fidelity
from asterope.units import PS_PER_S

__all__ = [
    "AttentionMapping",
    "AttentionTime",
    "attention_launches",
    "attention_mappings",
    "time_attention",
]

_RATE = "bf16"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionTime(OperationTime):
    """The time and energy of attention on one chip."""

    phase: str
    batch: int
    context: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionMapping(MappedTime):
    """One way to cut attention into blocks of rows and keys, with the time that it gives."""

    block_rows: int
    block_keys: int


def time_attention(chip: Chip, shape: AttentionAsked) -> AttentionTime:
    """Time attention: the library's kernels by tile, operators of calibrated GPUs, or a roofline.

    Raises: as `operators.attention_decode`.
    """
    timeline = attention_launches(chip, shape)
    fidelity, flop = chip.fidelities[-1], shape.flop(chip)
    time_s, parts, mapping = timeline.time_s, parts_s(timeline), grids_in_words(timeline)
    hbm_bytes: float = sum(launch.result.hbm_bytes for launch in timeline.launches)
    energy_j, energy_parts_j = timeline.energy_j, timeline.energy_parts_j()
    if fidelity == "operator":
        found = shape.operator(chip)
        time_s, parts, hbm_bytes = found.time_s, dict(found.parts), found.hbm_bytes
        mapping = found.mapping
        energy_j = None if chip.power.tdp_w is None else chip.power.tdp_w * time_s
        energy_parts_j = {} if energy_j is None else {"tdp": energy_j}
    return AttentionTime(
        phase=shape.phase, batch=shape.batch, context=shape.context,
        chip=f"{chip.name}:{chip.profile}", timed_by=fidelity, time_s=time_s, flop=flop,
        hbm_bytes=hbm_bytes, rate=_RATE,
        peak_share=flop / time_s / chip.peak_flop_per_s[_RATE],
        bound_by=max(parts, key=lambda name: parts[name]), parts=parts, mapping=mapping,
        energy_j=energy_j, energy_parts_j=energy_parts_j, clock_hz=lowest_clock_hz(timeline),
        throttled_s=timeline.throttled_ps / PS_PER_S,
    )  # fmt: skip


def attention_launches(
    chip: Chip, shape: AttentionAsked, *, blocks: KeyBlocks | None = None, max_events: int = 0
) -> Timeline:
    """Return the launches of attention, by tile or roofline, as a timeline.

    `blocks` are taken instead of those that are chosen; `max_events` keeps that many
    macro-instructions of each launch.
    """
    fidelity: Fidelity = "tile" if chip.tile else "roofline"
    with (
        watched_choices(instead=blocks),
        simulate(chip, values=False, fidelity=fidelity, max_events=max_events) as timeline,
    ):
        shape.launch()
    return timeline


def attention_mappings(
    chip: Chip, shape: AttentionAsked, *, most: int = 4
) -> list[AttentionMapping]:
    """Return the mappings of the least estimated time, the fastest as simulated first.

    The list is empty for a chip whose inside is not described.
    """
    if chip.tile is None:
        return []
    asked = shape.mapped(chip)
    found = []
    for i, each in enumerate(considered_keys(chip, asked)[:most]):
        blocks = each.blocks
        timeline = attention_launches(chip, shape, blocks=blocks)
        attended = next(x for x in timeline.launches if x.name.endswith(ATTENDING))
        grid = attended.grid
        found.append(
            AttentionMapping(
                block_rows=blocks.rows, block_keys=blocks.keys, stages=blocks.stages,
                split=blocks.parts(asked), programs=grid[0] * grid[1] * grid[2],
                estimated_s=each.cycles / chip.inside().clock_hz, time_s=timeline.time_s,
                hbm_bytes=sum(launch.result.hbm_bytes for launch in timeline.launches),
                bound_by=attended.result.bound_by, is_chosen=not i,
            )
        )  # fmt: skip
    return sorted(found, key=lambda mapping: mapping.time_s)
