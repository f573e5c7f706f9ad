"""gpt-oss: experts that a checkpoint packs, in bf16 or MXFP4, are those of transformers."""

from __future__ import annotations

import pytest
import torch

import asterope as ast
from asterope.errors import CheckpointError, UnsupportedError
from asterope.llm import load_model, published_config
from asterope.llm.config import Clamp, ModelConfig
from asterope.quant import QuantizedLinear, read_layout
from llm_checkpoints import MIXTURES, raw_config, tensors_of, write_checkpoint

CONFIG = raw_config(
    model_type="gpt_oss", architectures=["GptOssForCausalLM"], hidden_size=64, head_dim=16,
    num_attention_heads=4, intermediate_size=96, num_hidden_layers=1, **MIXTURES["gpt_oss"],
)  # fmt: skip
STORED = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head",
    ],
}  # fmt: skip
EXPERTS, MODULE = 5, "model.layers.0.mlp.experts"
ROWS = {"gate_up_proj": (192, 64), "down_proj": (64, 96)}


@pytest.fixture
def tensors():
    """Those of a checkpoint, but for its experts' weights."""
    generator = torch.Generator().manual_seed(0)
    made = {n: t for n, t in tensors_of(CONFIG).items() if MODULE not in n}
    for name, (rows, _) in ROWS.items():
        made[f"{MODULE}.{name}_bias"] = torch.randn(EXPERTS, rows, generator=generator)
    return made


@pytest.fixture
def blocks():
    """Weights of experts as MXFP4 has them."""
    generator, made = torch.Generator().manual_seed(1), {}
    for name, (rows, k) in ROWS.items():
        for what, low, high, shape in (
            ("blocks", 0, 256, (EXPERTS, rows, k // 32, 16)),
            ("scales", 122, 126, (EXPERTS, rows, k // 32)),
        ):
            made[f"{MODULE}.{name}_{what}"] = torch.randint(
                low, high, shape, dtype=torch.uint8, generator=generator
            )
    return made


def test_experts_in_blocks_are_what_transformers_makes_of_them(tensors, blocks, tmp_path):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    wide = {
        f"{MODULE}.{name}": convert_moe_packed_tensors(
            blocks[f"{MODULE}.{name}_blocks"],
            blocks[f"{MODULE}.{name}_scales"],
            dtype=torch.float32,
        )
        for name in ROWS
    }
    raw = {**CONFIG, "quantization_config": STORED}
    small = load_model(write_checkpoint(tmp_path / "small", raw, tensors=tensors | blocks))
    plain = load_model(write_checkpoint(tmp_path / "plain", CONFIG, tensors=tensors | wide))
    (ours,), (theirs,) = small.layers, plain.layers
    for place in ("gate_up", "down"):
        linear = getattr(ours, place)
        assert isinstance(linear, QuantizedLinear)
        assert linear.scheme.name == "mxfp4"
        assert torch.equal(linear.dequantize(), getattr(theirs, place).weight)
        assert torch.equal(linear.bias, getattr(theirs, place).bias)
    assert torch.equal(theirs.down.weight[64:128], wide[f"{MODULE}.down_proj"][1].T)
    gate, up = theirs.gate_up.weight[192:384].chunk(2)
    both = wide[f"{MODULE}.gate_up_proj"][1]
    assert torch.equal(gate, both[:, 0::2].T)
    assert torch.equal(up, both[:, 1::2].T)
    assert torch.equal(
        theirs.gate_up.bias[288:384], tensors[f"{MODULE}.gate_up_proj_bias"][1, 1::2]
    )
    tokens = torch.arange(3, 40)[None]
    first, second = (m.forward(tokens, m.new_cache(1, 40)) for m in (small, plain))
    assert float((first - second).norm()) < 0.02 * float(second.norm())


def test_experts_in_blocks_are_saved_with_their_codes(tensors, blocks, tmp_path):
    raw = {**CONFIG, "quantization_config": STORED}
    first = ast.load(write_checkpoint(tmp_path / "first", raw, tensors=tensors | blocks))
    again = ast.load(first.save(tmp_path / "again"))
    assert again.scheme == first.scheme
    for ours, theirs in zip(first.model.layers, again.model.layers, strict=True):
        for place in ("gate_up", "down"):
            assert torch.equal(getattr(ours, place).codes, getattr(theirs, place).codes)
        assert torch.equal(ours.sinks, theirs.sinks)
        assert torch.equal(ours.router.linear.bias, theirs.router.linear.bias)
    tokens = torch.arange(3, 40)[None]
    logits = [x.model.forward(tokens, x.model.new_cache(1, 40)) for x in (first, again)]
    assert torch.equal(*logits)


@pytest.mark.parametrize(
    ("key", "change", "what"),
    [
        ("down_proj_blocks", lambda t: None, "is missing"),
        ("gate_up_proj_scales", lambda t: None, "is missing"),
        ("down_proj_blocks", lambda t: t.int(), "is torch.int32, not torch.uint8"),
        ("down_proj_scales", lambda t: t[:, :, :2], "has shape [64, 2], not [64, 3]"),
        ("down_proj_scales", lambda t: t.fill_(255), "NaN"),
        ("down_proj_blocks", lambda t: t[:, :32], "has shape"),
    ],
)
def test_a_tensor_that_is_wrong_is_named(tensors, blocks, key, change, what, tmp_path):
    changed = change(blocks.pop(f"{MODULE}.{key}"))
    if changed is not None:
        blocks[f"{MODULE}.{key}"] = changed.contiguous()
    raw = {**CONFIG, "quantization_config": STORED}
    directory = write_checkpoint(tmp_path / "model", raw, tensors=tensors | blocks)
    with pytest.raises(CheckpointError) as caught:
        load_model(directory)
    assert what in str(caught.value)
    assert f"{MODULE}.0." in str(caught.value)


def test_a_field_that_is_not_known_is_refused():
    with pytest.raises(UnsupportedError, match="swizzled"):
        read_layout({**STORED, "swizzled": True})


def test_the_published_configuration_is_read():
    config = ModelConfig.from_dict(published_config("gpt-oss-20b"), where="")
    assert config.clamp == Clamp(alpha=1.702, limit=7.0)
    assert config.windows[:3] == (128, None, 128)
    assert (config.has_sinks, config.qkv_bias, config.output_bias) == (True, True, True)
    assert (config.experts.count, config.experts.top_k) == (32, 4)
    assert config.rope.factor == 32
    assert not config.rope.truncate
    assert config.dtype == "bfloat16"  # which it does not say
