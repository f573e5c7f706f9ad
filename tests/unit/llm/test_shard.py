"""One chip's part of a model that several share: its shapes, and what cannot be shared."""

from __future__ import annotations

import pytest

from asterope.errors import ConfigError, ShapeError
from asterope.llm import model_from_config, published_config, shard
from asterope.quant import scheme

LLAMA = published_config("llama-3.1-70b")


def test_each_chip_has_its_heads_its_columns_and_its_part_of_the_vocabulary():
    whole = model_from_config(LLAMA, scheme=scheme("mxfp4"))
    part = shard(whole, 4)
    assert (part.config.num_heads, part.config.num_kv_heads) == (16, 2)
    layer = part.layers[0]
    sizes = [
        (linear.out_features, linear.in_features)
        for linear in (layer.qkv, layer.output, layer.gate_up, layer.down)
    ]
    assert sizes == [(2560, 8192), (8192, 2048), (14336, 8192), (8192, 7168)]
    assert part.head.weight.shape == (32064, 8192)
    assert all(one is layer for one in part.layers)
    assert shard(whole, 1) is whole


@pytest.mark.parametrize("weights", [None, "mxfp4", "nvfp4", "fp8_row", "mxfp6"])
@pytest.mark.parametrize("chips", [2, 8])
def test_parts_together_weigh_what_the_whole_does_but_for_what_each_has(weights, chips):
    whole = model_from_config(LLAMA, scheme=scheme(weights) if weights else None)
    part = shard(whole, chips)
    for name in ("qkv", "output", "gate_up", "down"):
        have, of = getattr(part.layers[0], name), getattr(whole.layers[0], name)
        by_row = weights in {"fp8_row", "nvfp4"} and name in {"output", "down"}
        copied = 4 * 8192 * (chips - 1) if by_row else 0  # scales of rows whose columns are shared
        assert chips * have.num_bytes == of.num_bytes + copied, name
    assert part.embedding.shape == whole.embedding.shape


def test_the_factors_of_a_branch_go_with_rows_and_columns():
    layer = shard(model_from_config(LLAMA, scheme=scheme("mxfp4+r32")), 8).layers[0]
    assert (layer.qkv.lora_a.shape, layer.qkv.lora_b.shape) == ((32, 8192), (1280, 32))
    assert (layer.down.lora_a.shape, layer.down.lora_b.shape) == ((32, 3584), (8192, 32))


def test_biases_of_rows_go_with_their_rows():
    config = published_config("qwen2.5-72b")
    part = shard(model_from_config(config, scheme=scheme("fp8")), 8)
    assert part.layers[0].qkv.bias.shape == (part.config.q_size + 2 * part.config.kv_size,)
    plain = shard(model_from_config(config), 8)
    assert plain.layers[0].qkv.bias.shape == (part.config.q_size + 2 * part.config.kv_size,)


def test_key_heads_are_copied_where_chips_are_more():
    part = shard(model_from_config(LLAMA), 32)
    assert (part.config.num_heads, part.config.num_kv_heads) == (2, 1)


@pytest.mark.parametrize(
    ("changes", "chips", "words"),
    [
        ({}, 3, "64 query heads"),
        ({}, 128, "64 query heads"),
        ({"num_key_value_heads": 8, "num_attention_heads": 48}, 12, "8 key heads"),
        ({"intermediate_size": 28673}, 2, "28,673 MLP columns"),
    ],
)
def test_what_cannot_be_shared_is_named(changes, chips, words):
    model = model_from_config({**LLAMA, "head_dim": 128, "intermediate_size": 28800, **changes})
    with pytest.raises(ConfigError) as raised:
        shard(model, chips)
    assert words in raised.value.what
    assert raised.value.where == "tensor_parallel"


def test_parts_that_no_block_divides_are_refused():
    model = model_from_config({**LLAMA, "intermediate_size": 32 * 65}, scheme=scheme("mxfp4"))
    with pytest.raises(ShapeError) as raised:
        shard(model, 2)
    assert raised.value.where == "down on one of 2 chips"
