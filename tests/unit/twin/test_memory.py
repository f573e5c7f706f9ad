"""What a model takes of a chip's memory, and how many chips hold it."""

from __future__ import annotations

import pytest

from asterope.chips import get, maia200, names
from asterope.llm import count_parameters, model_from_config, published_config
from asterope.quant import WEIGHT_FORMATS, scheme
from asterope.twin import Memory, memory_of

CHIP = maia200()
DENSE = ("llama-2-7b", "llama-3.1-8b", "llama-3.1-405b", "qwen2.5-72b", "qwen3-32b",
         "mistral-7b-v0.1")  # fmt: skip


def model_of(name, quantized=None):
    plan = scheme(quantized) if quantized else None
    return model_from_config(published_config(name), scheme=plan, dtype="bfloat16", name=name)


@pytest.mark.parametrize("name", DENSE)
def test_weights_take_two_bytes_a_parameter_in_bf16(name):
    raw = published_config(name)
    taken = memory_of(model_of(name), CHIP, batch=1, context=2).weight_bytes
    matrices = 2 * count_parameters(raw).total
    assert matrices <= taken <= matrices * 1.0005  # norms and biases


def test_a_tied_embedding_is_counted_once():
    raw = published_config("llama-3.1-8b")
    untied, tied = (
        model_from_config({**raw, "tie_word_embeddings": flag}, dtype="bfloat16")
        for flag in (False, True)
    )
    table = 2 * raw["vocab_size"] * raw["hidden_size"]
    assert untied.weight_bytes - tied.weight_bytes == table


def test_the_norms_of_heads_are_counted():
    raw = {**published_config("llama-3.1-8b"), "architectures": None}
    plain, normed = (
        model_from_config({**raw, "model_type": family}, dtype="bfloat16")
        for family in ("llama", "qwen3")
    )
    assert normed.weight_bytes - plain.weight_bytes == 32 * 2 * 128 * 2


def test_a_format_of_fewer_bits_takes_less_memory():
    plain = model_of("llama-3.1-8b").weight_bytes
    sizes = {name: model_of("llama-3.1-8b", name).weight_bytes for name in WEIGHT_FORMATS}
    assert sizes["mxfp4"] < sizes["nvfp4"] < sizes["fp8_row"] < sizes["mxfp8"] < plain
    assert sizes["fp8_tensor"] == sizes["fp8_row"]


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize(("batch", "context"), [(1, 2), (3, 1000), (64, 4096)])
def test_the_cache_takes_a_key_and_a_value_for_each_head_layer_and_token(name, batch, context):
    raw, model = published_config(name), model_of(name)
    memory = memory_of(model, CHIP, batch=batch, context=context)
    head_dim = raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]
    per_token = 2 * raw["num_hidden_layers"] * raw["num_key_value_heads"] * head_dim * 2
    assert memory.kv_bytes == per_token * batch * context
    assert memory.kv_bytes == model.on_meta().new_cache(batch, context).num_bytes
    assert memory.total_bytes == memory.weight_bytes + memory.kv_bytes
    assert memory.capacity_bytes == CHIP.hbm.capacity_bytes


@pytest.mark.parametrize(
    ("total", "capacity", "chips"),
    [(1, 100, 1), (99, 100, 1), (100, 100, 1), (101, 100, 2), (200, 100, 2), (201, 100, 3)],
)
def test_it_fits_up_to_the_last_byte(total, capacity, chips):
    memory = Memory(weight_bytes=total // 2, kv_bytes=total - total // 2, capacity_bytes=capacity)
    assert memory.chips_needed == chips
    assert memory.fits == (chips == 1)


@pytest.mark.parametrize("chip", names())
@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.1-405b"])
@pytest.mark.parametrize("quantized", [None, "mxfp4"])
def test_so_many_chips_hold_a_model_and_one_fewer_does_not(chip, name, quantized):
    memory = memory_of(model_of(name, quantized), get(chip), batch=8, context=8192)
    there = memory.capacity_bytes
    assert memory.chips_needed * there >= memory.total_bytes
    assert (memory.chips_needed - 1) * there < memory.total_bytes
    assert memory.fits == (memory.total_bytes <= there)


def test_a_model_that_does_not_fit_does_in_fewer_bits_or_on_more_chips():
    """405B parameters are 812 GB in bf16, 225 GB in mxfp4; one chip has 216 GB."""
    plain, narrow = (
        memory_of(model_of("llama-3.1-405b", q), CHIP, batch=1, context=2) for q in (None, "mxfp4")
    )
    assert not plain.fits
    assert plain.chips_needed == 4
    assert narrow.chips_needed < plain.chips_needed
    whole = memory_of(model_of("llama-3-70b", "mxfp4"), CHIP, batch=8, context=8192)
    assert whole.fits
