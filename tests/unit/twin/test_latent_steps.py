"""Steps of models over latent vectors: what is read, what chips share, and times on GPUs."""

from __future__ import annotations

import pytest

from asterope import operators
from asterope.chips import get, maia200
from asterope.llm import model_from_config, published_config
from asterope.quant import scheme
from asterope.twin import memory_of, time_step

CHIP = maia200()
SMALL = {
    "num_hidden_layers": 3, "first_k_dense_replace": 1, "vocab_size": 2048, "hidden_size": 1024,
    "intermediate_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 16,
    "q_lora_rank": 512, "n_routed_experts": 16, "num_experts_per_tok": 2, "n_group": 4,
    "topk_group": 2, "moe_intermediate_size": 512, "quantization_config": None,
}  # fmt: skip


def model_of(fmt=None, **changes):
    raw = {**published_config("deepseek-v3"), **SMALL, **changes}
    return model_from_config(raw, scheme=scheme(fmt) if fmt else None, dtype="bfloat16")


def launches(step, name):
    return [x.result for x in step.launches if name in (x.name, x.tag)]


@pytest.mark.slow
def test_queries_may_have_no_latents_of_their_own():
    raw = {**published_config("deepseek-v2-lite"), "num_hidden_layers": 3}
    model = model_from_config(raw, dtype="bfloat16")
    step = time_step(model, CHIP, batch=2, context=128, fidelity="roofline")
    for place, n in (("qkv", 512 + 64), ("q_up", 16 * 192)):
        assert [x.total_flop for x in launches(step, place)] == [2 * 2 * n * 2048] * 3
    assert len(launches(step, "shared_gate_up")) == 2


def test_a_decode_step_reads_the_latents_of_each_token_once():
    step = time_step(model_of(), CHIP, batch=4, context=1024)
    attended = launches(step, "_absorbed_attention_kernel")
    assert len(attended) == 3
    cached = 4 * 1024 * (512 + 64) * 2
    queries = 4 * 16 * (512 + 64 + 512) * 2
    for result in attended:
        assert cached + queries <= result.hbm_bytes < 1.2 * (cached + queries)
    assert len(launches(step, "router")) == len(launches(step, "shared_down")) == 2
    assert len(launches(step, "q_up")) == 3
    memory = memory_of(model_of(), CHIP, batch=4, context=1024)
    assert memory.kv_bytes == 3 * cached


def test_a_prompt_is_expanded():
    step = time_step(model_of(), CHIP, phase="prefill", batch=1, context=256)
    assert len(launches(step, "_expanded_attention_kernel")) == 3
    assert not launches(step, "_absorbed_attention_kernel")


@pytest.mark.slow
def test_chips_share_heads_and_both_kinds_of_layers():
    one = time_step(model_of("mxfp4/fp8"), CHIP, batch=4, context=512, fidelity="roofline")
    two = time_step(
        model_of("mxfp4/fp8"), CHIP, batch=4, context=512, fidelity="roofline", tensor_parallel=2
    )
    for place in ("gate_up", "shared_gate_up", "q_up", "output"):
        halves = [x.total_flop for x in launches(two, place) if x.flop]
        assert halves == [x.total_flop / 2 for x in launches(one, place) if x.flop]
    for place in ("qkv", "router"):  # what all heads share is made on each chip
        assert [x.total_flop for x in launches(one, place)] == [
            x.total_flop for x in launches(two, place)
        ]
    # After attention and the feed-forward part of each layer, and the head's logits.
    assert len(launches(two, "all_reduce")) == 6
    assert two.memory.weight_bytes < one.memory.weight_bytes
    spread = time_step(
        model_of(), CHIP, batch=8, context=512, fidelity="roofline", expert_parallel=4
    )
    assert len(launches(spread, "all_to_all")) == 4


@pytest.mark.parametrize("phase", ["decode", pytest.param("prefill", marks=pytest.mark.slow)])
def test_on_gpus_each_launch_is_the_operator_of_its_shape(phase):
    chip, context, batch = get("h100"), 1024, 8 if phase == "decode" else 1
    step = time_step(
        model_of(), chip, phase=phase, batch=batch, context=context, fidelity="operator"
    )
    names = {"_head_linear_kernel", "_absorbed_attention_kernel", "_expanded_attention_kernel"}
    around = sum(
        x.result.time_s
        for x in step.launches
        if x.name in names or (x.name == "_linear_kernel" and not x.tag)
    )
    heads = operators.LatentHeads(query=16, absorbed=phase == "decode")
    tokens = 1 if phase == "decode" else context
    alone = operators.latent_attention(
        chip, heads, batch=batch, tokens=tokens, past=context - tokens
    )
    assert around == pytest.approx(3 * alone.time_s)
    assert step.time_s > around


@pytest.mark.parametrize(
    ("fmt", "batch"), [(None, 8), pytest.param("fp8_block128/same", 64, marks=pytest.mark.slow)]
)
def test_a_step_on_a_gpu_is_that_of_the_operators_of_the_whole_model(fmt, batch):
    """Launch by launch of our forward pass, or from the sizes of the model alone."""
    chip, layers, dense = get("h100"), 4, 1
    whole = {**published_config("deepseek-v3"), "quantization_config": None}
    raw = {**whole, "num_hidden_layers": layers, "first_k_dense_replace": dense}
    model = model_from_config(raw, scheme=scheme(fmt) if fmt else None, dtype="bfloat16")
    found = time_step(model, chip, batch=batch, context=2048, fidelity="operator")
    shape = operators.Transformer(
        hidden_size=7168, num_layers=layers, vocab_size=129280, intermediate_size=18432,
        heads=operators.LatentHeads(query=128, query_latent=1536), dense_layers=dense,
        moe=operators.MixtureOfExperts(
            num_experts=256, top_k=8, intermediate_size=2048, shared_intermediate=2048
        ),
    )  # fmt: skip
    precision = operators.Precision()
    if fmt:
        precision = operators.Precision(rate="fp8", a_bits=8, b_bits=8, block_scaled=True)
    expected = operators.decode_step(chip, shape, batch=batch, context=2048, precision=precision)
    assert found.time_s == pytest.approx(expected.time_s, rel=0.06)
