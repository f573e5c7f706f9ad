"""Steps whose experts are on several chips: what each holds, what it sends, who is refused."""

from __future__ import annotations

import pytest

from asterope import operators
from asterope.chips import get, maia200
from asterope.errors import ConfigError
from asterope.llm import Sharing, model_from_config, published_config, shard
from asterope.twin import memory_of, time_step

CHIP = maia200()
HIDDEN, INNER, EXPERTS, TOP_K, LAYERS = 1024, 256, 32, 4, 2


def model_of(**changes):
    raw = {
        **published_config("qwen3-30b-a3b"), "num_hidden_layers": LAYERS, "vocab_size": 2048,
        "hidden_size": HIDDEN, "num_attention_heads": 8, "moe_intermediate_size": INNER,
        "num_experts": EXPERTS, "num_experts_per_tok": TOP_K, **changes,
    }  # fmt: skip
    return model_from_config(raw, dtype="bfloat16")


def steps(expert, tensor=1, *, batch=64, chip=CHIP, **more):
    return time_step(
        model_of(), chip, batch=batch, context=128, expert_parallel=expert, tensor_parallel=tensor,
        **more,
    )  # fmt: skip


def loads_of(expert, tokens):
    """Return what the busiest chip's experts see, and what all experts see."""
    shared = shard(model_of(), 1, expert).with_expert_loads("random", tokens)
    router = model_of().layers[0].router
    return shared.layers[0].router.assumed_loads(tokens), router.assumed_loads(tokens)


def test_the_busiest_chip_has_its_experts_rows_and_reads_their_weights():
    mine, every = loads_of(4, 64)
    on_chips = every.view(4, -1).sum(1)
    assert (len(mine), int(mine.sum())) == (EXPERTS // 4, int(on_chips.max()))
    assert int(on_chips.sum()) == 64 * TOP_K
    step = steps(4)
    rows, used = int(mine.sum()), int((mine > 0).sum())
    for place, n, k in (("gate_up", 2 * INNER, HIDDEN), ("down", HIDDEN, INNER)):
        for result in (t.result for t in step.launches if t.tag == place):
            assert result.total_flop == 2 * rows * n * k
            least = 2 * (used * n * k + rows * (n + k))
            assert least <= result.hbm_bytes < 1.05 * least + (1 << 16)
    whole = memory_of(model_of(), CHIP, batch=64, context=128)
    experts = 2 * 3 * HIDDEN * INNER * EXPERTS * LAYERS
    assert whole.weight_bytes - step.memory.weight_bytes == experts * 3 // 4
    assert step.memory.kv_bytes * 4 == whole.kv_bytes


@pytest.mark.parametrize("fidelity", ["roofline", "tile"])
def test_a_shared_step_is_faster_but_by_no_more_than_the_chips_are(fidelity):
    one, four = (steps(n, batch=512, fidelity=fidelity) for n in (1, 4))
    assert one.time_s / 4 < four.time_s < one.time_s
    assert sum(four.breakdown_ps.values()) == pytest.approx(four.time_s * 1e12)
    assert (four.chips, four.batch, four.num_tokens) == (4, 512, 512)
    assert four.energy_j == pytest.approx(4 * sum(t.result.energy_j for t in four.launches))


def test_rows_go_to_their_experts_and_come_back():
    step, (mine, _) = steps(8, tensor=4), loads_of(8, 64)
    # Two groups have 32 sequences each, and a chip routes a fourth of them.
    rows = max(int(mine.sum()), 32 // 4 * TOP_K)
    sent = round(operators.COLLECTIVES["all_to_all"](8) * rows * HIDDEN * 2)
    back = round(operators.COLLECTIVES["all_gather"](4) * 32 * HIDDEN * 2)
    found = [
        (t.name, t.result.bytes["network"]) for t in step.launches if t.tag == "experts"
    ]  # fmt: skip
    assert found == [("all_to_all", sent), ("all_to_all", sent), ("all_gather", back)] * LAYERS
    outputs = [t for t in step.launches if t.tag == "output" and t.name == "all_reduce"]
    assert len(outputs) == LAYERS
    names = [t.name for t in step.launches]
    assert names[names.index("all_to_all") - 1] == "_take_rows_kernel"


def test_gpus_share_experts_too():
    h100 = get("h100")
    one, eight = (steps(n, batch=512, chip=h100, fidelity="operator") for n in (1, 8))
    assert one.time_s / 8 < eight.time_s < one.time_s
    mine, _ = loads_of(8, 512)
    down = [t.result.time_s for t in eight.launches if t.tag == "down"]
    expected = operators.expert_product(
        h100, mine.double().numpy(), HIDDEN, INNER, rate="bf16", bits=(16, 16)
    )  # fmt: skip
    assert down == pytest.approx([expected.time_s] * LAYERS)


def test_sequences_are_those_of_the_busiest_group():
    assert [Sharing(tensor=4, expert=16).sequences(n) for n in (1, 4, 5, 64)] == [1, 1, 2, 16]
    assert Sharing(tensor=4).sequences(5) == 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"expert": 6, "tensor": 4}, "6 chips are no whole groups of 4"),
        ({"expert": 3}, "32 experts cannot be shared by 3 chips"),
        ({"expert": 16, "chip": get("h100"), "fidelity": "operator"}, "h100 joins 8 chips, not 16"),
        ({"expert": 0}, "0 chips are no whole groups"),
    ],
)
def test_experts_that_cannot_be_shared_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        steps(**options)


def test_a_dense_model_has_no_experts_to_share():
    dense = model_from_config(published_config("llama-3.1-8b"), dtype="bfloat16")
    with pytest.raises(ConfigError, match="without experts"):
        time_step(dense, CHIP, expert_parallel=4)
