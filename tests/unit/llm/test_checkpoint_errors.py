"""Checkpoints that are missing, misshapen, truncated, unsafe or not numbers: one clear error."""

from __future__ import annotations

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from asterope.errors import CheckpointError, ConfigError, ShapeError, UnsupportedError
from asterope.llm import Model, load_model, load_tokenizer, open_tensors
from asterope.quant import quantization_config, quantize_weight, scheme, to_tensors
from llm_checkpoints import LLAMA, raw_config, tensors_of, write_checkpoint

QKV = "model.layers.1.self_attn.q_proj.weight"


def fails(directory, **options):
    with pytest.raises(CheckpointError) as caught:
        load_model(directory, **options)
    return caught.value


@pytest.fixture
def tensors():
    return tensors_of(LLAMA)


# -- what loads ------------------------------------------------------------------------------------
def equal(a: Model, b: Model):
    tokens = torch.arange(3, 15)[None]
    got = [m.forward(tokens, m.new_cache(1, 16)) for m in (a, b)]
    return torch.equal(*got)


def test_shards_load_as_one_file_does(tmp_path):
    whole = load_model(write_checkpoint(tmp_path / "whole"))
    sharded = load_model(write_checkpoint(tmp_path / "sharded", shards=3))
    assert (whole.name, sharded.name) == ("whole", "sharded")
    assert equal(whole, sharded)


def test_tensors_that_nobody_asked_for_are_left_alone(tmp_path, tensors):
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    tensors["model.layers.7.mlp.down_proj.weight"] = torch.full((2, 2), torch.nan)
    load_model(write_checkpoint(tmp_path, tensors=tensors))


def test_a_tied_model_needs_no_head(tmp_path):
    raw = raw_config(tie_word_embeddings=True)
    model = load_model(write_checkpoint(tmp_path, raw))
    assert model.head.weight is model.embedding


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_stored_in_another_type_are_converted(tmp_path, tensors, stored):
    narrow = {k: v.to(stored) for k, v in tensors.items()}
    model = load_model(write_checkpoint(tmp_path, tensors=narrow), dtype="float32")
    assert model.dtype == torch.float32
    assert torch.equal(model.norm, narrow["model.norm.weight"].float())


def test_progress_counts_layers(tmp_path):
    seen = []
    load_model(write_checkpoint(tmp_path), progress=lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]


# -- tensors ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name",
    [
        QKV,
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.norm.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.1.mlp.down_proj.weight",
    ],
)
def test_a_missing_tensor_is_named(tmp_path, tensors, name):
    del tensors[name]
    error = fails(write_checkpoint(tmp_path, tensors=tensors))
    assert f"tensor {name} is missing" in error.what
    assert error.where == str(tmp_path)
    assert error.hint


def test_a_missing_bias_is_named(tmp_path, tensors):
    error = fails(write_checkpoint(tmp_path, raw_config(attention_bias=True), tensors=tensors))
    assert "model.layers.0.self_attn.q_proj.bias is missing" in error.what
    assert "q_proj.weight" in error.hint  # what is nearby


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (QKV, (48, 47)), (QKV, (47, 48)), (QKV, (48,)), (QKV, (1, 48, 48)), (QKV, ()),
        ("model.norm.weight", (49,)), ("model.embed_tokens.weight", (102, 48)),
    ],
)  # fmt: skip
def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path, tensors, name, shape):
    wanted = list(tensors[name].shape)
    tensors[name] = torch.zeros(shape)
    error = fails(write_checkpoint(tmp_path, tensors=tensors))
    assert f"tensor {name} has shape {list(shape)}, config.json asks for {wanted}" in error.what


def test_a_transposed_square_weight_cannot_be_seen_but_another_can(tmp_path, tensors):
    name = "model.layers.0.mlp.gate_proj.weight"
    tensors[name] = tensors[name].T.contiguous()
    assert (
        "has shape [48, 72], config.json asks for [72, 48]"
        in fails(write_checkpoint(tmp_path, tensors=tensors)).what
    )


@pytest.mark.parametrize(
    ("value", "kind"), [(torch.nan, "NaN"), (torch.inf, "infinite"), (-torch.inf, "infinite")]
)
@pytest.mark.parametrize("name", [QKV, "model.norm.weight", "lm_head.weight"])
def test_a_value_that_is_no_number_is_named_with_its_place(tmp_path, tensors, name, value, kind):
    tensors[name].view(-1)[17] = value
    error = fails(write_checkpoint(tmp_path, tensors=tensors))
    at = [17] if tensors[name].dim() == 1 else [0, 17]
    assert f"tensor {name} is {kind} at {at}" in error.what
    assert "damaged" in error.hint


def test_infinities_that_cancel_are_seen_too(tmp_path, tensors):
    tensors[QKV][3, 4], tensors[QKV][5, 6] = torch.inf, -torch.inf
    assert "is infinite at [3, 4]" in fails(write_checkpoint(tmp_path, tensors=tensors)).what


def test_large_weights_whose_sum_overflows_are_no_error(tmp_path, tensors):
    tensors = {k: v.half() for k, v in tensors.items()}
    tensors[QKV] = torch.full_like(tensors[QKV], 60000.0)
    load_model(write_checkpoint(tmp_path, tensors=tensors))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.uint8])
def test_a_weight_that_is_not_floating_point_is_named(tmp_path, tensors, dtype):
    tensors[QKV] = torch.zeros(48, 48, dtype=dtype)
    error = fails(write_checkpoint(tmp_path, tensors=tensors))
    assert QKV in error.what
    assert "not floating point" in error.what


def test_values_that_overflow_the_type_asked_for_are_an_error(tmp_path, tensors):
    """1e6 is a number in float32 and none in float16: it must not become infinite in silence."""
    tensors[QKV][0, 0] = 1e6
    error = fails(write_checkpoint(tmp_path, tensors=tensors), dtype="float16")
    assert f"tensor {QKV} is infinite at [0, 0] in float16" in error.what
    assert "bfloat16" in error.hint
    load_model(tmp_path, dtype="bfloat16")


# -- quantized -------------------------------------------------------------------------------------
WIDE = raw_config(hidden_size=64, num_attention_heads=4, intermediate_size=96)


def test_a_weight_that_is_no_number_is_named_where_it_is_quantized_too(tmp_path):
    tensors = tensors_of(WIDE)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    for name in ("mxfp4", "nvfp4", "fp8_row"):
        error = fails(write_checkpoint(tmp_path, WIDE, tensors=tensors), scheme=scheme(name))
        assert "model.layers.1.mlp.up_proj" in str(error)
        assert "NaN at [3, 5]" in error.what


@pytest.mark.parametrize(("name", "size"), [("mxfp4", 32), ("mxfp8", 32)])
def test_a_block_that_does_not_divide_a_weight_is_named(tmp_path, name, size):
    with pytest.raises(ShapeError, match=f"blocks of {size}") as caught:
        load_model(write_checkpoint(tmp_path), scheme=scheme(name))
    assert "model.layers.0.self_attn.q_proj" in caught.value.where
    assert "fp8" in caught.value.hint


def stored_quantized(directory, plan, tensors):
    """Write a checkpoint in the compressed-tensors layout."""
    kept = dict(tensors)
    for name in [n for n in tensors if n.endswith("_proj.weight")]:
        layer = name.removesuffix(".weight")
        kept.pop(name)
        kept.update(to_tensors(layer, quantize_weight(tensors[name], plan, name=layer)))
    raw = {**WIDE, "quantization_config": quantization_config(plan, ["lm_head"])}
    return write_checkpoint(directory, raw, tensors=kept)


@pytest.mark.parametrize("name", ["fp8_row", "mxfp8", "mxfp4/same", "mxfp6"])
def test_a_checkpoint_stored_quantized_is_the_original_quantized(tmp_path, name):
    plan, tensors = scheme(name), tensors_of(WIDE)
    stored = load_model(stored_quantized(tmp_path / "stored", plan, tensors))
    made = load_model(write_checkpoint(tmp_path / "plain", WIDE, tensors=tensors), scheme=plan)
    assert (stored.scheme, stored.weight_bytes) == (made.scheme, made.weight_bytes)
    for a, b in zip(stored.layers, made.layers, strict=True):
        for place in ("qkv", "output", "gate_up", "down"):
            assert torch.equal(getattr(a, place).dequantize(), getattr(b, place).dequantize())


def test_a_stored_scale_that_is_missing_or_misshapen_is_named(tmp_path):
    plan, tensors = scheme("mxfp4"), tensors_of(WIDE)
    path = stored_quantized(tmp_path, plan, tensors) / "model.safetensors"
    good, key = load_file(path), "model.layers.1.mlp.down_proj.weight_scale"
    for changed, says in (
        ({k: v for k, v in good.items() if k != key}, "is missing"),
        ({**good, key: good[key][:, :1].contiguous()}, "has shape"),
        ({**good, key: torch.full_like(good[key], 255)}, "NaN"),
    ):
        save_file(changed, path)
        error = fails(tmp_path)
        assert key in error.where
        assert says in error.what


def test_a_stored_weight_of_another_shape_is_named(tmp_path):
    plan, tensors = scheme("mxfp4"), tensors_of(WIDE)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.ones(64, 64)
    error = fails(stored_quantized(tmp_path, plan, tensors))
    assert (
        "model.layers.0.mlp.up_proj has shape [64, 64], config.json asks for [96, 64]" in error.what
    )


def test_a_quantized_checkpoint_is_not_quantized_again(tmp_path):
    directory = stored_quantized(tmp_path, scheme("mxfp4"), tensors_of(WIDE))
    with pytest.raises(ConfigError, match="already quantized") as caught:
        load_model(directory, scheme=scheme("nvfp4"))
    assert caught.value.where == str(directory)
    assert caught.value.hint


@pytest.mark.parametrize("value", ["x", 3, [1], {"quant_method": "gptq"}, {"a": 1}, True])
def test_a_quantization_that_cannot_be_read_is_named(tmp_path, value):
    write_checkpoint(tmp_path, {**WIDE, "quantization_config": value})
    with pytest.raises((CheckpointError, UnsupportedError)) as caught:
        load_model(tmp_path)
    assert "quantization_config" in caught.value.where


# -- files -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("keep", [0, 4, 8, 60, 0.5, 0.999])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = write_checkpoint(tmp_path) / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    error = fails(tmp_path)
    assert error.where == str(path)
    assert "not a whole safetensors file" in error.what
    assert error.hint


def test_a_file_with_a_huge_header_is_refused(tmp_path):
    path = write_checkpoint(tmp_path) / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    assert fails(tmp_path).where == str(path)


def test_a_pickle_is_refused_by_name_and_never_opened(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle ran",))

    for name in ("pytorch_model.bin", "model.pt", "weights.pth", "model.pkl"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Bomb()))
        error = fails(tmp_path)
        assert f"{name} is a pickle" in error.what
        assert "safe_serialization" in error.hint
        path.unlink()


def test_a_pickle_beside_safetensors_is_not_looked_at(tmp_path):
    write_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    load_model(tmp_path)


def test_a_directory_without_weights_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    error = fails(tmp_path)
    assert "there is no .safetensors file" in error.what
    assert error.where == str(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    write_checkpoint(tmp_path, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    error = fails(tmp_path)
    assert "shard model-00002-of-00003.safetensors is missing" in error.what
    assert error.where.endswith("model.safetensors.index.json")


def test_one_whole_file_is_read_alone(tmp_path, tensors):
    """Some publish the same weights twice, in a layout of their own beside it."""
    write_checkpoint(tmp_path, tensors=tensors)
    save_file({"model.norm.weight": torch.zeros(3)}, tmp_path / "consolidated.safetensors")
    assert torch.equal(load_model(tmp_path).norm, tensors["model.norm.weight"])


def test_a_tensor_that_its_shard_does_not_hold_is_named(tmp_path, tensors):
    write_checkpoint(tmp_path, shards=2, tensors=tensors)
    for path in tmp_path.glob("*.safetensors"):
        save_file({k: v for k, v in load_file(path).items() if k != QKV}, path)
    assert f"tensor {QKV} is missing" in fails(tmp_path).what


def test_a_shard_may_not_lie_outside_the_directory(tmp_path):
    inside = write_checkpoint(tmp_path / "inside", shards=2)
    outside = write_checkpoint(tmp_path / "outside")
    index = inside / "model.safetensors.index.json"
    for name in ("../outside/model.safetensors", str(outside / "model.safetensors"), "..", ""):
        index.write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
        assert "missing" in fails(inside).what


@pytest.mark.parametrize(
    "index",
    ["", "{", "[]", "null", "3", "{}", '{"weight_map": []}', '{"weight_map": 3}',
     '{"weight_map": {"a": 3}}', '{"weight_map": {"a": 3, "b": "c"}}', '{"weight_map": {"a": []}}',
     '{"weight_map": {"a": null}}', '{"weight_map": {}}'],
)  # fmt: skip
def test_a_damaged_index_is_named(tmp_path, index):
    write_checkpoint(tmp_path, shards=2)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    error = fails(tmp_path)
    assert error.where == str(tmp_path / "model.safetensors.index.json")
    assert "\n" not in error.what


def test_a_file_that_is_a_directory_is_named(tmp_path):
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()
    assert str(tmp_path) in fails(tmp_path).where


# -- options ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["fp32", "float64", "int8", "float8_e4m3fn", ""])
def test_a_type_that_models_do_not_compute_in_is_refused(tmp_path, dtype):
    write_checkpoint(tmp_path)
    if dtype == "":
        assert load_model(tmp_path, dtype=dtype).dtype == torch.float32
        return
    with pytest.raises(ConfigError, match=dtype) as caught:
        load_model(tmp_path, dtype=dtype)
    assert caught.value.where == "dtype"
    assert "bfloat16" in caught.value.hint


def test_a_directory_may_be_given_as_text(tmp_path):
    assert load_model(str(write_checkpoint(tmp_path))).name == tmp_path.name


def test_open_tensors_lists_names_and_reads_one(tmp_path, tensors):
    write_checkpoint(tmp_path, tensors=tensors, shards=2)
    with open_tensors(tmp_path) as files:
        assert set(files.names()) == set(tensors)
        assert QKV in files
        assert "nothing" not in files
        assert torch.equal(files.raw(QKV), tensors[QKV])
        assert torch.equal(files.get(QKV, (48, 48)), tensors[QKV])
        with pytest.raises(CheckpointError, match="tensor nothing is missing"):
            files.raw("nothing")


def test_a_tokenizer_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no tokenizer\.json") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.where == str(tmp_path)
    for content in ("", "{}", "[]", '{"model": 3}'):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(CheckpointError, match="cannot be read") as caught:
            load_tokenizer(tmp_path)
        assert caught.value.where == str(tmp_path / "tokenizer.json")


def test_a_tokenizer_encodes_and_decodes(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<unk>": 0, "a": 1, "tile": 2, "of": 3, "memory": 4}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == 5
    assert tokenizer.encode("a tile of memory") == [1, 2, 3, 4]
    assert tokenizer.decode([1, 2]) == "a tile"


def test_saved_files_are_what_the_test_thinks_they_are(tmp_path):
    """A shape of [] is a scalar, which safetensors keeps."""
    save_file({"x": torch.zeros(())}, tmp_path / "model.safetensors")
    with open_tensors(tmp_path) as files:
        assert files.raw("x").shape == ()
