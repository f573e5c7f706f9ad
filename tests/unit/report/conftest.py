"""A report whose numbers are known, so that what is shown can be compared with them."""

from __future__ import annotations

import pytest

from asterope.report import (
    Accuracy,
    AccuracyRow,
    Activity,
    Assumption,
    BreakEven,
    ChipFacts,
    CostRow,
    Estimate,
    LaunchGroup,
    MemoryFit,
    ModelFacts,
    PowerRoof,
    RunReport,
    Sample,
    Step,
)

MAIA, H200, B200 = "maia200:bench", "h200", "b200"
MXFP4 = "mxfp4 weights, bf16 activations"
TIMED = [(MAIA, "tile", MXFP4), (MAIA, "tile", "unquantized"), (MAIA, "roofline", MXFP4),
         (H200, "roofline", MXFP4), (B200, "roofline", MXFP4)]  # fmt: skip


def accuracy_row(name, perplexity, kl, bits, **more):
    return AccuracyRow(
        format=name, scheme=f"{name} weights, bf16 activations", perplexity=perplexity,
        perplexity_ratio=perplexity / 20.0, kl=kl, top1_agreement=1 - kl, bits_per_weight=bits,
        weight_bytes=int(bits * 1e6), **more,
    )  # fmt: skip


def step(phase, index, chip, fidelity, scheme):
    groups = tuple(
        LaunchGroup(
            place=place, kernel=kernel, launches=2, time_s=4e-3 / 2**n,
            bound_s={"hbm": 3e-3 / 2**n, "launch": 1e-3 / 2**n}, flop=flop, hbm_bytes=10**9,
            energy_j=0.8 / 2**n,
        )
        for n, (place, kernel, flop) in enumerate(
            [("down", "scaled_linear", {"bf16": 10**11}), ("", "rms_norm", {}),
             ("head", "linear", {"bf16": 10**10})]
        )
    )  # fmt: skip
    time_s = 7e-3
    return Step(
        phase=phase, chip=chip, fidelity=fidelity, scheme=scheme, batch=32, context=4096,
        num_tokens=32, time_s=time_s, tokens_per_s=4567.8 + index, energy_j=1.5,
        joules_per_token=0.0469 + index, bound_by="hbm",
        breakdown_s={"hbm": 5.25e-3, "launch": 1.75e-3}, flop=11 * 10**10, hbm_bytes=3 * 10**9,
        peak_share=0.123, bandwidth_share=0.456, groups=groups,
        energy_parts_j={"leakage": 0.9, "hbm": 0.5, "tensor": 0.1},
        activity=Activity(time_s=time_s, busy={"hbm": (0.5, 0.9, None), "tensor": (0.0, 0.2, 1.0)}),
    )  # fmt: skip


def cost(phase, index, chip, fidelity, scheme):
    return CostRow(
        chip=chip, phase=phase, fidelity=fidelity, scheme=scheme, num_chips=1,
        tokens_per_s=4567.8 + index, usd_per_mtok=0.611 + 0.1 * index,
        electricity_usd_per_mtok=0.0123, joules_per_token=0.36 + index, usd_per_chip_hour=1.95,
        price_basis="tco_hyperscaler", price_is_assumed=chip == MAIA, utilisation=0.6,
    )  # fmt: skip


def chip(name, peak):
    return ChipFacts(
        name=name, vendor="A vendor", peak_flop_per_s={"bf16": peak, "fp8": 2 * peak},
        hbm_bytes_per_s=7e12, hbm_effective_bytes_per_s=4e12 if name == MAIA else 7e12,
        hbm_bytes=216 * 10**9, tdp_w=750.0,
        power_roofs={
            name: PowerRoof(static_w=145.0, flop_j=joules, hbm_byte_j=35e-12)
            for name, joules in (("bf16", 3e-13), ("fp8", 2e-13))
        } if name == MAIA else {},
    )  # fmt: skip


ESTIMATE = Estimate(
    model=ModelFacts(
        name="tiny <b>llama</b>", source="here", family="llama", parameters=5_770_000, num_layers=6,
        hidden_size=256, intermediate_size=512, num_heads=4, num_kv_heads=2, head_dim=64,
        vocab_size=4096, max_context=512, tied_embeddings=True, dtype="bfloat16",
    ),
    scheme=MXFP4,
    chips=(chip(MAIA, 1.18e15), chip(H200, 9.89e14), chip(B200, 2.25e15)),
    steps=tuple(
        step(phase, i, *timed) for phase in ("decode", "prefill") for i, timed in enumerate(TIMED)
    ),
    memory=(
        MemoryFit(chip=MAIA, batch=32, context=4096, weight_bytes=40 * 10**9, kv_bytes=86 * 10**9,
                  capacity_bytes=216 * 10**9, fits=True, chips_needed=1),
        MemoryFit(chip=H200, batch=32, context=4096, weight_bytes=40 * 10**9, kv_bytes=186 * 10**9,
                  capacity_bytes=151 * 10**9, fits=False, chips_needed=2),
    ),
    costs=tuple(
        cost(phase, i, *timed) for phase in ("decode", "prefill") for i, timed in enumerate(TIMED)
    ),
    break_even=(
        BreakEven(chip=MAIA, fidelity="roofline", other=H200, other_fidelity="roofline",
                  phase="decode", usd_per_chip_hour=1.92, same_basis=True),
        BreakEven(chip=MAIA, fidelity="roofline", other=B200, other_fidelity="roofline",
                  phase="decode", usd_per_chip_hour=None, same_basis=False),
    ),
    assumptions=(
        Assumption(kind="cost", subject="all chips", name="pue", value=1.12, unit="W/W",
                   source="A source", confidence="secondary", note="A remark"),
        Assumption(kind="chip", subject=MAIA, name="noc.hop_cycles", value=3, unit="cycles",
                   source="A guess", confidence="assumed", note=""),
    ),
    notes=("A note about chips.",),
)  # fmt: skip
REPORT = RunReport(
    accuracy=Accuracy(
        text="4,096 tokens of a book", num_tokens=4096, context=512, is_random=False,
        rows=(
            AccuracyRow(
                format="original", scheme="unquantized", perplexity=20.0, perplexity_ratio=1.0,
                kl=0.0, top1_agreement=1.0, bits_per_weight=16.0, weight_bytes=16 * 10**6,
                is_original=True,
            ),
            accuracy_row("mxfp4", 20.5, 0.031, 4.25, is_chosen=True),
            accuracy_row("nvfp4", 19.9, 0.028, 4.5),
        ),
    ),
    sample=Sample(
        prompt="if a < b:", original=" return a", quantized=" return <b>", num_tokens=4,
        sampling="greedy", original_tokens_per_s=77.1, quantized_tokens_per_s=161.4,
    ),
    estimate=ESTIMATE,
    notes=("A note about accuracy.",),
    versions={"asterope": "0.1.0", "torch": "2.13.0"},
    command="asterope run 'my model' --format mxfp4",
    created="2026-01-02T03:04:05+00:00",
)  # fmt: skip


@pytest.fixture
def report():
    """A report of a run."""
    return REPORT
