"""Steps of mixtures of experts: what is read is what tokens ask for, and one expert is an MLP."""

from __future__ import annotations

import pytest
import torch

from asterope import operators
from asterope.chips import get, maia200
from asterope.errors import ConfigError, UnsupportedError
from asterope.llm import model_from_config, published_config
from asterope.quant import scheme
from asterope.runtime import listen, stop_listening
from asterope.twin import memory_of, time_step

CHIP = maia200()
HIDDEN, INNER, EXPERTS, TOP_K = 1024, 256, 32, 4


def model_of(fmt=None, layers=2, **changes):
    raw = {
        **published_config("qwen3-30b-a3b"), "num_hidden_layers": layers, "vocab_size": 2048,
        "hidden_size": HIDDEN, "num_attention_heads": 8, "moe_intermediate_size": INNER,
        "num_experts": EXPERTS, "num_experts_per_tok": TOP_K, **changes,
    }  # fmt: skip
    return model_from_config(raw, scheme=scheme(fmt) if fmt else None, dtype="bfloat16")


def launches_of(step, place):
    return [t.result for t in step.launches if t.tag == place]


@pytest.mark.parametrize(
    ("fidelity", "loads", "batch"),
    [("roofline", "random", 5), ("tile", "random", 1), ("tile", "even", 5), ("tile", "random", 64)],
)
def test_weights_are_read_of_the_experts_that_have_tokens(fidelity, loads, batch):
    model = model_of()
    router = model.with_expert_loads(loads).layers[0].router
    counts = router.assumed_loads(batch)
    used = int((counts > 0).sum())
    assert int(counts.sum()) == batch * TOP_K
    if loads == "even":
        assert used == min(EXPERTS, batch * TOP_K)
    step = time_step(model, CHIP, batch=batch, context=64, fidelity=fidelity, expert_loads=loads)
    rows = batch * TOP_K
    for place, n, k in (("gate_up", 2 * INNER, HIDDEN), ("down", HIDDEN, INNER)):
        for result in launches_of(step, place):
            least = 2 * (used * n * k + rows * (n + k))
            # Beside them programs read where experts begin, once each.
            assert least <= result.hbm_bytes < 1.05 * least + (1 << 16)
            assert result.total_flop == 2 * rows * n * k


def test_memory_holds_all_experts():
    whole, one = model_of(), model_of(num_experts=TOP_K)
    expert = 2 * 3 * HIDDEN * INNER
    router = 2 * HIDDEN
    more = (EXPERTS - TOP_K) * (expert + router) * 2
    sizes = [memory_of(m, CHIP, batch=1, context=64).weight_bytes for m in (whole, one)]
    assert sizes[0] - sizes[1] == more


@pytest.mark.parametrize(("phase", "fmt"), [("decode", None), ("prefill", "mxfp4/fp8")])
def test_the_products_of_one_expert_take_the_time_of_an_mlp(phase, fmt):
    dense = {
        **published_config("llama-3.1-8b"), "num_hidden_layers": 1, "vocab_size": 2048,
        "hidden_size": 2048, "intermediate_size": 8192,
    }  # fmt: skip
    one = {
        **dense, "model_type": "mixtral", "architectures": None, "rope_scaling": None,
        "num_local_experts": 1, "num_experts_per_tok": 1,
    }  # fmt: skip
    plan = scheme(fmt) if fmt else None
    steps = [
        time_step(
            model_from_config(raw, scheme=plan, dtype="bfloat16"), CHIP, phase=phase, batch=4,
            context=256,
        )
        for raw in (dense, one)
    ]  # fmt: skip
    for place in ("gate_up", "down"):
        mlp, expert = (sum(r.time_s for r in launches_of(step, place)) for step in steps)
        assert mlp * 0.85 < expert < mlp * 1.15  # blocks may differ
    # Routing, sorting, copying and adding up are launches of their own.
    assert len(steps[1].launches) == len(steps[0].launches) + 5


def test_a_folded_step_is_the_step_of_all_layers():
    model, heard = model_of("nvfp4", layers=3), []

    class Listener:
        wants_values = False

        def on_launch(self, launch):
            heard.append(launch.kernel.name)

    listener = Listener()
    listen(listener)
    try:
        whole = time_step(model, CHIP, batch=3, context=64)
    finally:
        stop_listening(listener)
    folded = time_step(model, CHIP, batch=3, context=64)
    assert len(heard) == len(whole.launches)
    assert [t.result for t in folded.launches] == [t.result for t in whole.launches]


def test_chips_that_share_a_layer_add_up_tokens_not_rows_of_experts():
    step = time_step(model_of(), CHIP, batch=16, context=64, tensor_parallel=4)
    sums = [t for t in step.launches if t.name == "all_reduce" and t.tag == "experts"]
    sent = operators.COLLECTIVES["all_reduce"](4) * 16 * HIDDEN * 2
    assert [t.result.bytes["network"] for t in sums] == [sent] * 2
    names = [t.name for t in step.launches]
    assert names[names.index("_combine_kernel") + 1] == "all_reduce"
    flop = sum(r.total_flop for r in launches_of(step, "gate_up"))
    assert flop == 2 * 2 * 16 * TOP_K * HIDDEN * 2 * INNER // 4


def test_gpus_time_products_of_experts_by_their_loads():
    chip, model = get("h100"), model_of("fp8")
    step = time_step(model, chip, batch=4, context=64, fidelity="operator")
    loads = model.layers[0].router.assumed_loads(4).double().numpy()
    linear = model.layers[0].down
    bits = 8 * linear.num_bytes / (linear.out_features * linear.in_features)
    expected = operators.expert_product(
        chip, loads, HIDDEN, INNER, rate="bf16", bits=(16, bits)
    )  # fmt: skip
    assert [r.time_s for r in launches_of(step, "down")] == pytest.approx([expected.time_s] * 2)
    even = time_step(model, chip, batch=4, context=64, fidelity="operator", expert_loads="even")
    assert even.time_s > step.time_s  # random tokens share some experts


def test_gpus_time_branches_of_experts_by_their_loads_and_rotations_by_their_rows():
    chip = get("h100")
    steps = [
        time_step(model_of(fmt), chip, batch=4, context=64, fidelity="operator")
        for fmt in ("mxfp4", "mxfp4+h+r8")
    ]
    plain, more = ([r.time_s for r in launches_of(step, "down") if r.flop] for step in steps)
    loads = model_of().layers[0].router.assumed_loads(4).double().numpy()
    added = [
        operators.gemm(chip, 4 * TOP_K * INNER // 32, 32, 32, rate="bf16", bits=(16, 16)),
        *(operators.expert_product(chip, loads, n, k, rate="bf16", bits=(16, 16))
          for n, k in ((8, INNER), (HIDDEN, 8))),
    ]  # fmt: skip
    turned, product, first, second = more[:4]
    assert product == pytest.approx(plain[0])
    assert [turned, first, second] == pytest.approx([each.time_s for each in added])


def test_a_step_on_a_gpu_is_near_the_calibrated_one():
    chip, model = get("h100"), model_from_config(published_config("qwen3-30b-a3b"))
    mixture = operators.MixtureOfExperts(num_experts=128, top_k=8, intermediate_size=768)
    shape = operators.Transformer(
        hidden_size=2048, num_layers=48, heads=operators.Heads(query=32, key_value=4, dim=128),
        vocab_size=151936, moe=mixture,
    )  # fmt: skip
    for batch in (1, 32):
        step = time_step(model, chip, batch=batch, context=2048, fidelity="operator")
        expected = operators.decode_step(chip, shape, batch=batch, context=2048)
        assert step.time_s == pytest.approx(expected.time_s, rel=0.05)


def test_a_spread_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="random or even"):
        time_step(model_of(), CHIP, context=64, expert_loads="skewed")


def test_random_tokens_pick_different_experts_alike_often():
    counts = model_of().layers[0].router.assumed_loads(4000).double()
    assert float(counts.std()) == pytest.approx((4000 * TOP_K / EXPERTS) ** 0.5, rel=0.4)
    assert torch.equal(counts, model_of().layers[0].router.assumed_loads(4000).double())


SMALL = {
    "vocab_size": 2048, "num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8,
    "intermediate_size": 1024, "num_experts": 8, "num_experts_per_tok": 2,
}  # fmt: skip


def test_layers_without_experts_lie_between_those_with_and_one_beside_them():
    raw = {
        **SMALL, "model_type": "qwen2_moe", "moe_intermediate_size": 256, "decoder_sparse_step": 2,
        "shared_expert_intermediate_size": 384,
    }  # fmt: skip
    model = model_from_config(raw, dtype="bfloat16")
    for chip, fidelity in ((CHIP, "roofline"), (get("h100"), "operator")):
        step = time_step(model, chip, batch=4, context=64, fidelity=fidelity)
        for place, flop in (
            ("gate_up", [4 * 512 * 2048, 8 * 512 * 512] * 2),
            ("shared_gate_up", [4 * 512 * 768] * 2),
        ):
            found = [r.total_flop for r in launches_of(step, place) if r.flop]
            assert found == [2 * n for n in flop]
    whole, shared = (
        time_step(model, CHIP, batch=4, context=64, fidelity="roofline", **kind)
        for kind in ({}, {"tensor_parallel": 2, "expert_parallel": 2})
    )
    assert shared.memory.weight_bytes < whole.memory.weight_bytes


def test_sinks_and_biases_of_gpt_oss_are_timed_and_shared():
    raw = {**SMALL, "model_type": "gpt_oss", "num_local_experts": 8, "sliding_window": 32}
    model = model_from_config(raw, scheme=scheme("mxfp4"), dtype="bfloat16")
    for chip, fidelity in ((CHIP, "tile"), (get("h100"), "operator")):
        step = time_step(model, chip, batch=4, context=64, fidelity=fidelity)
        names = [t.name for t in step.launches]
        assert names.count("_clamped_swiglu_kernel") == names.count("_attention_kernel") == 4
    two = time_step(model, CHIP, batch=4, context=64, fidelity="roofline", tensor_parallel=2)
    one = time_step(model, CHIP, batch=4, context=64, fidelity="roofline")
    assert two.memory.weight_bytes < 0.7 * one.memory.weight_bytes


def test_norms_over_all_heads_keep_these_on_one_chip():
    model = model_from_config({**SMALL, "model_type": "olmoe"}, dtype="bfloat16")
    step = time_step(model, CHIP, batch=4, context=64, fidelity="roofline", expert_parallel=2)
    assert [t.name for t in step.launches].count("_rms_norm_kernel") == 4 * (2 + 2) + 1
    with pytest.raises(UnsupportedError, match="norms over all heads"):
        time_step(model, CHIP, batch=4, context=64, fidelity="roofline", tensor_parallel=2)
