"""Experts of a torch model, one by one: what they compute, and what is laid out otherwise."""

import copy
import warnings

import pytest
import torch
from torch import nn

from asterope.errors import ShapeError, UnsupportedError
from asterope.quant import FakeQuantizedLinear, UnpackedExperts, prepare_qat, unpack_experts

H, INNER, NUM, TOP_K, TOKENS = 64, 32, 4, 2, 9
SIZES = {
    "hidden_size": H, "intermediate_size": INNER, "moe_intermediate_size": INNER,
    "num_local_experts": NUM, "num_experts": NUM, "n_routed_experts": NUM, "hidden_act": "silu",
}  # fmt: skip
EXPERTS = {
    "mixtral": "MixtralExperts", "qwen3_moe": "Qwen3MoeExperts", "olmoe": "OlmoeExperts",
    "glm4_moe": "Glm4MoeExperts", "deepseek_v3": "DeepseekV3Experts",
}  # fmt: skip


def experts_of(family, name):
    """Return the module that transformers has, with drawn weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
    module = __import__(f"transformers.models.{family}.modeling_{family}", fromlist=[name])
    config = transformers.AutoConfig.for_model(family, **SIZES)
    config._experts_implementation = "eager"
    made = getattr(module, name)(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return nn.ModuleDict({"experts": made})


def routed():
    """Return tokens, whom each goes to, and the shares; nobody goes to the last expert."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(TOKENS, H, generator=generator)
    chosen = torch.stack([torch.randperm(NUM - 1, generator=generator) for _ in range(TOKENS)])
    return x, chosen[:, :TOP_K], torch.rand(TOKENS, TOP_K, generator=generator)


@pytest.mark.parametrize("family", EXPERTS)
def test_unpacked_experts_compute_what_packed_ones_do(family):
    model = experts_of(family, EXPERTS[family])
    expected = model.experts(*routed())
    whole = model.experts.down_proj.detach().clone()
    unpack_experts(model)
    torch.testing.assert_close(model.experts(*routed()), expected)
    torch.testing.assert_close(copy.deepcopy(model).experts(*routed()), expected)
    names = {name for name, _ in model.named_parameters()}
    parts = ("gate_proj", "up_proj", "down_proj")
    assert names == {f"experts.{i}.{part}.weight" for i in range(NUM) for part in parts}
    assert torch.equal(model.get_parameter("experts.2.down_proj.weight"), whole[2])


def test_experts_in_training_share_a_static_scale_of_inputs():
    model = prepare_qat(experts_of("mixtral", "MixtralExperts"), "nvfp4/same+r4")
    experts = model.experts
    assert isinstance(experts, UnpackedExperts)
    assert all(
        isinstance(layer, FakeQuantizedLinear) for place in experts.places for layer in place
    )
    experts(*routed()).square().sum().backward()
    for place in experts.places:
        scales = {float(layer.input_scale) for layer in place}
        assert len(scales) == 1
        assert scales != {0.0}
    reached = model.get_parameter("experts.0.gate_proj.weight").grad
    assert bool(reached.abs().sum() > 0)
    assert model.get_parameter(f"experts.{NUM - 1}.gate_proj.weight").grad is None


def test_experts_that_a_block_does_not_divide_are_named_and_left():
    model = experts_of("mixtral", "MixtralExperts")
    before = {name for name, _ in model.named_parameters()}
    with pytest.raises(ShapeError, match=f"{INNER}") as caught:
        prepare_qat(model, "mxfp4+h64")
    assert caught.value.where == "experts.0.down_proj"
    assert {name for name, _ in model.named_parameters()} == before
    model.experts(*routed())


def test_experts_that_lie_otherwise_are_named_and_left():
    model = experts_of("gpt_oss", "GptOssExperts")
    before = {name for name, _ in model.named_parameters()}
    with pytest.raises(UnsupportedError, match="laid out as no other") as caught:
        prepare_qat(model, "mxfp4")
    assert caught.value.where == "experts"
    assert {name for name, _ in model.named_parameters()} == before
