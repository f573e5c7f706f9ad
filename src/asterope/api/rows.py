"""From what the lower floors return to the plain rows of a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from asterope.api.activity import activity_of_resources
from asterope.chips import Chip, Confidence, figures, peak_power
from asterope.cost import Cost, break_even_usd_per_chip_hour
from asterope.llm import (
    Linear,
    Model,
    ModelConfig,
    PlainLinear,
    Quality,
    Sharing,
    count_parameters,
    shard,
)
from asterope.quant import Plan, QuantizedLinear
from asterope.report import (
    AccuracyRow,
    Assumption,
    BreakEven,
    ChipFacts,
    CostRow,
    LaunchGroup,
    MemoryFit,
    ModelFacts,
    PowerRoof,
    Step,
)
from asterope.runtime import TimedLaunch
from asterope.twin import StepTime, memory_of
from asterope.units import PS_PER_S

__all__ = [
    "accuracy_row",
    "assumption_rows",
    "break_even_row",
    "chip_facts",
    "chip_label",
    "cost_row",
    "largest_first",
    "launch_groups",
    "memory_fit",
    "model_facts",
    "step_row",
]

_SHARED = ("usd_per_kwh", "pue", "utilisation", "idle_power_fraction", "electricity_in_price")
_ALONE = Sharing()
# What the roofline reads of a chip, and what no step on one chip reads.
_ROOFLINE_FIGURES = ("peak_flop_per_s.", "hbm.bandwidth_bytes_per_s", "power.tdp_w")
_UNUSED_FIGURES = ("network.", "host_bytes_per_s", "transistors", "process", "die_mm2", "sram_")


def chip_label(chip: Chip) -> str:
    """Return the name of a chip with its profile, marked where a user has changed it."""
    label = chip.name if chip.profile == "default" else f"{chip.name}:{chip.profile}"
    origins = {origin.confidence for origin in chip.provenance.values()}
    return f"{label} (what-if)" if Confidence.WHAT_IF in origins or not chip.base else label


def chip_facts(chip: Chip) -> ChipFacts:
    """Return the roofs of a chip."""
    return ChipFacts(
        name=chip_label(chip),
        vendor=chip.vendor,
        peak_flop_per_s=dict(chip.peak_flop_per_s),
        hbm_bytes_per_s=chip.hbm.bandwidth_bytes_per_s,
        hbm_effective_bytes_per_s=chip.hbm_effective_bytes_per_s,
        hbm_bytes=chip.hbm.capacity_bytes,
        tdp_w=chip.power.tdp_w,
        power_roofs=_power_roofs(chip),
    )


def _power_roofs(chip: Chip) -> dict[str, PowerRoof]:
    """Return what flop and bytes of HBM cost at the peaks; bytes go over the NoC into TSRAM."""
    pj = chip.power.energy_pj
    if chip.tile is None or pj is None or chip.idle_w is None:
        return {}
    byte_j = (pj.hbm_byte + pj.noc_byte + pj.tsram_byte) * 1e-12
    streaming_w = chip.hbm_effective_bytes_per_s * byte_j
    return {
        peak.format: PowerRoof(
            static_w=chip.idle_w,
            flop_j=(peak.power_w - chip.idle_w - streaming_w) / (2 * chip.macs_per_s(peak.format)),
            hbm_byte_j=byte_j,
        )
        for peak in peak_power(chip)
    }


def model_facts(model: Model, config: Mapping[str, object], source: str) -> ModelFacts:
    """Return a model in one line."""
    shape = model.config
    return ModelFacts(
        name=model.name, source=source, family=shape.family,
        parameters=_parameters(shape, config), num_layers=shape.num_layers,
        hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_heads=shape.num_heads, num_kv_heads=shape.num_kv_heads, head_dim=shape.head_dim,
        vocab_size=shape.vocab_size, max_context=shape.max_context,
        tied_embeddings=shape.tied_embeddings, dtype=str(model.dtype).removeprefix("torch."),
    )  # fmt: skip


def _parameters(shape: ModelConfig, config: Mapping[str, object]) -> int:
    """Count the weights of the matrices; families share one shape, whatever the file leaves out."""
    dense = 0 if shape.experts is None else shape.experts.dense_size
    filled = {
        "vocab_size": shape.vocab_size, "hidden_size": shape.hidden_size,
        "intermediate_size": dense or shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads, "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim, "tie_word_embeddings": shape.tied_embeddings,
    }  # fmt: skip
    return count_parameters({**config, **filled}).total


def accuracy_row(
    model: Model, scheme: Plan | None, name: str, quality: Quality, original: Quality
) -> AccuracyRow:
    """Return what a format has lost against the original."""
    return AccuracyRow(
        format=name,
        scheme=scheme.describe() if scheme else "unquantized",
        perplexity=quality.perplexity,
        perplexity_ratio=quality.perplexity / original.perplexity,
        kl=quality.kl,
        top1_agreement=quality.top1_agreement,
        bits_per_weight=_bits_per_weight(model),
        weight_bytes=model.weight_bytes,
    )


def _bits_per_weight(model: Model) -> float:
    """Count codes, scales and branches as checkpoints store them, over the projections' weights."""
    linears = [x for layer in model.layers for x in layer.linears.values()]
    sizes = [_stored_bits(linear) for linear in linears]
    return sum(bits for bits, _ in sizes) / sum(weights for _, weights in sizes)


def _stored_bits(linear: Linear) -> tuple[float, int]:
    if isinstance(linear, PlainLinear):
        return 8.0 * linear.weight.numel() * linear.weight.element_size(), linear.weight.numel()
    assert isinstance(linear, QuantizedLinear)
    n, k = linear.out_features, linear.in_features
    fmt = linear.scheme.format
    assert fmt is not None
    bits = float(n * k * fmt.element.bits)
    if isinstance(fmt.granularity, int):
        bits += n * k / fmt.granularity * fmt.scale.bits
    elif fmt.granularity == "row":
        bits += n * fmt.scale.bits
    return bits + 8 * linear.branch_bytes, n * k


def step_row(step: StepTime, chip: Chip) -> Step:
    """Return a step with its launches grouped by kernel and place, the longest first."""
    return Step(
        phase=step.phase, chip=chip_label(chip), fidelity=step.fidelity,
        scheme=step.scheme or "unquantized", batch=step.batch, context=step.context,
        num_tokens=step.num_tokens, time_s=step.time_s, tokens_per_s=step.tokens_per_s,
        energy_j=step.energy_j, joules_per_token=step.joules_per_token, bound_by=step.bound_by,
        breakdown_s=_seconds(step.breakdown_ps), flop=step.flop, hbm_bytes=step.hbm_bytes,
        peak_share=step.peak_share, bandwidth_share=step.bandwidth_share,
        groups=launch_groups(step.launches), energy_parts_j=largest_first(step.energy_parts_j),
        throttled_s=step.throttled_ps / PS_PER_S, hidden_s=step.hidden_ps / PS_PER_S,
        num_chips=step.chips,
        activity=activity_of_resources(step.launches) if step.fidelity == "tile" else None,
    )  # fmt: skip


def _seconds(picoseconds: Mapping[str, int]) -> dict[str, float]:
    return {name: ps / PS_PER_S for name, ps in sorted(picoseconds.items(), key=lambda x: -x[1])}


def largest_first(joules: Mapping[str, float]) -> dict[str, float]:
    """Return parts from the largest down."""
    return dict(sorted(joules.items(), key=lambda part: -part[1]))


def launch_groups(launches: Iterable[TimedLaunch]) -> tuple[LaunchGroup, ...]:
    """Return launches grouped by kernel and place, the longest group first."""
    together: dict[tuple[str, str], list[TimedLaunch]] = {}
    for timed in launches:
        together.setdefault((timed.tag, timed.name), []).append(timed)
    groups = [_group(*key, members) for key, members in together.items()]
    return tuple(sorted(groups, key=lambda group: -group.time_s))


def _group(place: str, kernel: str, members: Sequence[TimedLaunch]) -> LaunchGroup:
    bound_ps: dict[str, int] = {}
    flop: dict[str, int] = {}
    for timed in members:
        _add(bound_ps, timed.result.breakdown_ps)
        _add(flop, timed.result.flop)
    return LaunchGroup(
        place=place,
        kernel=kernel.strip("_").removesuffix("_kernel"),
        launches=len(members),
        time_s=sum(timed.result.time_ps for timed in members) / PS_PER_S,
        bound_s=_seconds(bound_ps),
        flop=flop,
        hbm_bytes=sum(timed.result.hbm_bytes for timed in members),
        energy_j=_energy_j(members),
    )


def _energy_j(members: Sequence[TimedLaunch]) -> float | None:
    joules = [timed.result.energy_j for timed in members]
    return None if None in joules else sum(j for j in joules if j is not None)


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def memory_fit(
    model: Model, chip: Chip, *, batch: int, context: int, sharing: Sharing = _ALONE
) -> MemoryFit:
    """Return what the model and its KV cache take of a chip's memory, where several share them."""
    part, num_chips = shard(model, sharing.tensor, sharing.expert), sharing.chips
    memory = memory_of(part, chip, batch=sharing.sequences(batch), context=context)
    return MemoryFit(
        chip=chip_label(chip), batch=batch, context=context, weight_bytes=memory.weight_bytes,
        kv_bytes=memory.kv_bytes, capacity_bytes=memory.capacity_bytes, fits=memory.fits,
        chips_needed=num_chips * memory.chips_needed, num_chips=num_chips,
    )  # fmt: skip


def cost_row(step: Step, cost: Cost) -> CostRow:
    """Return what a step costs."""
    return CostRow(
        chip=step.chip, phase=step.phase, fidelity=step.fidelity, scheme=step.scheme,
        num_chips=cost.num_chips,
        tokens_per_s=cost.tokens_per_s, usd_per_mtok=cost.usd_per_mtok,
        electricity_usd_per_mtok=cost.electricity_usd_per_mtok,
        joules_per_token=cost.joules_per_token, usd_per_chip_hour=cost.usd_per_chip_hour,
        price_basis=str(cost.price.basis or "given"), price_is_assumed=cost.price.is_assumed,
        utilisation=next(float(s.value) for s in cost.stated if s.name == "utilisation"),
    )  # fmt: skip


def break_even_row(step: Step, cost: Cost, other_step: Step, other: Cost) -> BreakEven:
    """Return the price at which the first ties with the other."""
    tie = break_even_usd_per_chip_hour(cost, other)
    return BreakEven(
        chip=step.chip, fidelity=step.fidelity, other=other_step.chip,
        other_fidelity=other_step.fidelity, phase=step.phase,
        usd_per_chip_hour=tie if tie > 0 else None,
        same_basis=cost.price.basis == other.price.basis,
    )  # fmt: skip


def assumption_rows(chips: Sequence[Chip], costs: Mapping[str, Cost]) -> Iterator[Assumption]:
    """List what prices and times rest on: all of a cost, and each figure nobody has published.

    `costs` are by the label of the chip.
    """
    said: set[str] = set()
    for label, cost in costs.items():
        for row in cost.stated:
            subject = "all chips" if row.name in _SHARED else label
            if (subject, row.name) == ("all chips", row.name) and row.name in said:
                continue
            said.add(row.name)
            yield Assumption(
                kind="cost", subject=subject, name=row.name, value=row.value, unit=row.unit,
                source=row.source, confidence=str(row.confidence), note=row.note,
            )  # fmt: skip
    for chip in chips:
        yield from _assumed_figures(chip)


def _assumed_figures(chip: Chip) -> Iterator[Assumption]:
    for row in figures(chip):
        used = row.path.startswith(_ROOFLINE_FIGURES) if chip.tile is None else True
        if not used or row.path.startswith(_UNUSED_FIGURES):
            continue
        if row.confidence in (Confidence.ASSUMED, Confidence.WHAT_IF):
            yield Assumption(
                kind="chip", subject=chip_label(chip), name=row.path, value=row.value,
                unit=row.unit, source=row.source, confidence=str(row.confidence),
                note=row.note or row.doc,
            )  # fmt: skip
