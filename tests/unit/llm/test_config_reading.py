"""config.json: what is read, and errors that name the file and the field."""

from __future__ import annotations

import json
import math

import pytest

from asterope.errors import CheckpointError
from asterope.llm import (
    FAMILIES,
    ExpertsConfig,
    LatentConfig,
    ModelConfig,
    Rope,
    published_config,
    read_config,
)
from llm_checkpoints import MIXTURES, raw_config


def read(**changes):
    return ModelConfig.from_dict(raw_config(**changes), where="some/config.json")


# -- what is read ----------------------------------------------------------------------------------
def test_a_plain_config():
    config = read()
    assert (config.family, config.num_layers, config.head_dim) == ("llama", 2, 8)
    assert (config.q_size, config.kv_size) == (48, 16)
    assert config.windows == (None, None)
    assert not (config.qkv_bias or config.output_bias or config.mlp_bias or config.norm_sizes)
    assert config.rope == Rope(theta=10000.0)
    assert config.kv_bytes_per_token(2) == 2 * 2 * 16 * 2


@pytest.mark.parametrize(
    ("family", "qkv", "output", "norms"),
    [
        ("llama", False, False, None),
        ("mistral", False, False, None),
        ("qwen2", True, False, None),
        ("qwen3", False, False, (8, 8)),
    ],
)
def test_families_differ_in_biases_and_norms(family, qkv, output, norms):
    config = read(model_type=family, architectures=None)
    assert (config.qkv_bias, config.output_bias, config.norm_sizes) == (qkv, output, norms)


def test_missing_fields_have_the_values_of_the_family():
    config = read(
        num_key_value_heads=None, head_dim=None, max_position_embeddings=None, rms_norm_eps=None,
        rope_theta=None, hidden_act=None, tie_word_embeddings=None, dtype=None,
    )  # fmt: skip
    assert config.num_kv_heads == 6
    assert config.head_dim == 8
    assert config.rope.theta == 10000.0
    assert config.norm_eps == 1e-6
    assert config.dtype == "float32"
    assert not config.tied_embeddings


@pytest.mark.parametrize(
    ("family", "fields", "windows"),
    [
        ("mistral", {"sliding_window": 9}, (9, 9, 9)),
        ("mistral", {"sliding_window": None}, (None,) * 3),
        ("llama", {"sliding_window": 9}, (None,) * 3),
        ("qwen2", {"sliding_window": 9, "use_sliding_window": False}, (None,) * 3),
        (
            "qwen2", {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 1},
            (None, 9, 9),
        ),
        (
            "qwen2", {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 0},
            (9, 9, 9),
        ),
        (
            "qwen2", {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 7},
            (None,) * 3,
        ),
        (
            "qwen3",
            {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"] * 1
             + ["sliding_attention"]},
            (9, None, 9),
        ),
    ],
)  # fmt: skip
def test_windows_of_each_layer(family, fields, windows):
    config = read(model_type=family, architectures=None, num_hidden_layers=3, **fields)
    assert config.windows == windows


@pytest.mark.parametrize(
    ("eos", "ids"), [(None, ()), (7, (7,)), ([7, 9], (7, 9)), (0, (0,)), ([], ())]
)
def test_end_tokens_are_one_or_several(eos, ids):
    assert read(eos_token_id=eos).eos_ids == ids


def test_rope_scaling_is_read_in_the_old_and_the_new_spelling():
    scaling = {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    old = read(rope_theta=5e5, rope_scaling={"rope_type": "llama3", **scaling}).rope
    older = read(rope_theta=5e5, rope_scaling={"type": "llama3", **scaling}).rope
    new = read(rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, **scaling}).rope
    assert old == older == new
    assert new.kind == "llama3"


def test_inverse_frequencies_of_plain_and_linear_rope():
    plain = Rope(theta=10000.0).inverse_frequencies(8)
    assert plain == pytest.approx([1.0, 0.1, 0.01, 0.001])
    linear = Rope(theta=10000.0, kind="linear", factor=4.0).inverse_frequencies(8)
    assert linear == pytest.approx([f / 4 for f in plain])


def test_llama3_rope_keeps_short_waves_and_stretches_long_ones():
    rope = Rope(
        theta=5e5, kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_context=8192,
    )  # fmt: skip
    plain = Rope(theta=5e5).inverse_frequencies(128)
    scaled = rope.inverse_frequencies(128)
    assert all(p / 8 <= s <= p for p, s in zip(plain, scaled, strict=True))
    assert scaled == sorted(scaled, reverse=True)
    waves = [2 * math.pi / f for f in plain]
    for wave, p, s in zip(waves, plain, scaled, strict=True):
        if wave < 8192 / 4:
            assert s == p
        if wave > 8192:
            assert s == pytest.approx(p / 8)


DENSE = ("llama-3.1-8b", "llama-3-70b", "qwen2.5-72b", "qwen3-8b", "mistral-7b-v0.1")


@pytest.mark.parametrize("name", DENSE)
def test_published_dense_configurations_are_read(name):
    config = ModelConfig.from_dict(published_config(name), where=name)
    assert config.family in FAMILIES
    assert config.num_heads % config.num_kv_heads == 0


@pytest.mark.parametrize("name", ["deepseek-v3.2", "glm-4.5"])
def test_published_configurations_of_other_builds_are_refused(name):
    with pytest.raises(CheckpointError, match="is not supported") as caught:
        ModelConfig.from_dict(published_config(name), where=name)
    assert caught.value.where == f"{name}: model_type"


@pytest.mark.parametrize(
    ("name", "experts", "inner"),
    [
        ("mixtral-8x7b", ExpertsConfig(count=8, top_k=2, normalized=True), 14336),
        ("qwen3-30b-a3b", ExpertsConfig(count=128, top_k=8, normalized=True), 768),
    ],
)
def test_published_mixtures_of_experts_are_read(name, experts, inner):
    config = ModelConfig.from_dict(published_config(name), where=name)
    assert (config.experts, config.intermediate_size) == (experts, inner)


def test_published_configurations_over_latents_are_read():
    config = ModelConfig.from_dict(published_config("deepseek-v3"), where="")
    assert config.latent == LatentConfig(
        rank=512, query_rank=1536, nope=128, rope=64, value=128, pairs=True
    )
    assert config.experts == ExpertsConfig(
        count=256, top_k=8, normalized=True, scoring="sigmoid", groups=8, top_groups=4, scale=2.5,
        is_corrected=True, shared_size=2048, dense_layers=(0, 1, 2), dense_size=18432,
    )  # fmt: skip
    assert (config.at(2).experts, config.at(2).intermediate_size) == (None, 18432)
    assert config.at(3) is config
    assert config.kv_bytes_per_token(2) == 61 * 576 * 2
    growth = 0.1 * math.log(40) + 1
    assert config.score_scale == pytest.approx(192**-0.5 * growth**2)
    assert config.rope.table_factor == 1
    kimi = ModelConfig.from_dict(published_config("kimi-k2"), where="")
    assert (kimi.num_heads, kimi.experts.count, kimi.experts.groups) == (64, 384, 1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"topk_method": "greedy"}, "topk_method"), ({"scoring_func": "softmax"}, "scoring_func"),
        ({"moe_layer_freq": 2}, "moe_layer_freq"), ({"n_group": 7}, "topk_group"),
        ({"qk_rope_head_dim": 63}, "qk_rope_head_dim"), ({"topk_group": 9}, "topk_group"),
        ({"model_type": "deepseek_v2", "topk_method": "greedy", "scoring_func": "softmax"},
         "norm_topk_prob"),
    ],
)  # fmt: skip
def test_other_ways_to_route_and_to_turn_are_refused_by_field(changes, field):
    raw = {**published_config("deepseek-v3"), **changes}
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_dict(raw, where="config")
    assert caught.value.where == f"config: {field}"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("mlp_only_layers", [-1], r"\[-1\] is not a list of layers"),
        ("decoder_sparse_step", 0, "0 is not a whole number"),
        ("num_experts_per_tok", 129, "above num_experts 128"),
        ("num_experts", None, "is missing"),
    ],
)
def test_mixtures_of_another_build_are_refused_by_field(field, value, says):
    raw = {**published_config("qwen3-30b-a3b"), field: value}
    with pytest.raises(CheckpointError, match=says) as caught:
        ModelConfig.from_dict(raw, where="config")
    assert caught.value.where.removeprefix("config: ") in (field, "num_local_experts")


def test_layers_without_experts_are_those_named_and_those_between():
    raw = {**published_config("qwen3-30b-a3b"), "num_hidden_layers": 6}
    config = ModelConfig.from_dict(
        {**raw, "decoder_sparse_step": 2, "mlp_only_layers": [3, 9]}, where="config"
    )
    assert config.experts.dense_layers == (0, 2, 3, 4)
    assert [i for i in range(6) if config.at(i).experts is None] == [0, 2, 3, 4]
    assert (config.at(3).intermediate_size, config.intermediate_size) == (6144, 768)


def test_values_that_are_clipped_before_attention_are_refused():
    with pytest.raises(CheckpointError, match=r"8\.0 is not supported") as caught:
        read(model_type="olmoe", architectures=None, clip_qkv=8.0, **MIXTURES["olmoe"])
    assert caught.value.where == "some/config.json: clip_qkv"


# -- errors ----------------------------------------------------------------------------------------
REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
            "num_attention_heads")  # fmt: skip


@pytest.mark.parametrize("field", REQUIRED)
def test_a_missing_field_is_named(field):
    with pytest.raises(CheckpointError, match="is missing") as caught:
        read(**{field: None})
    assert caught.value.where == f"some/config.json: {field}"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("model_type", "gpt2", "is not supported"),
        ("model_type", None, "is not supported"),
        ("architectures", ["LlamaForSequenceClassification"], "is not supported"),
        ("hidden_act", "gelu", "'gelu' is not supported"),
        ("num_key_value_heads", 4, "4 does not divide 6 heads"),
        ("head_dim", 7, "7 is odd"),
        ("layer_types", ["full_attention"], "1 entries for 2 layers"),
        ("rms_norm_eps", "tiny", "'tiny' is not a number"),
        ("rms_norm_eps", float("nan"), "not a number"),
        ("tie_word_embeddings", "no", "neither true nor false"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(field, value, says):
    changes = {field: value}
    if field == "layer_types":
        changes["sliding_window"] = 8
    with pytest.raises(CheckpointError) as caught:
        read(**changes)
    assert says in caught.value.what
    assert caught.value.where.startswith("some/config.json: ")
    assert field in caught.value.where or field == "architectures"


def test_an_unsupported_rope_is_named_with_those_there_are():
    with pytest.raises(CheckpointError, match="'longrope' is not supported") as caught:
        read(rope_parameters={"rope_type": "longrope", "factor": 4.0})
    assert caught.value.where == "some/config.json: rope_parameters.rope_type"
    assert "llama3" in caught.value.hint


def test_a_rope_that_turns_part_of_each_head_is_refused():
    """transformers would turn half of each head; turning all of it gives another model."""
    with pytest.raises(CheckpointError, match="partial_rotary_factor"):
        read(rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.5})


FIELDS = (*REQUIRED, "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps",
          "rope_theta", "rope_parameters", "rope_scaling", "hidden_act", "tie_word_embeddings",
          "attention_bias", "mlp_bias", "sliding_window", "use_sliding_window",
          "max_window_layers", "layer_types", "eos_token_id", "bos_token_id", "dtype",
          "model_type", "architectures")  # fmt: skip
GARBAGE = ("x", -1, 0, 2.5, True, [], {}, [1], {"a": 1}, 10**40, float("inf"), float("nan"))


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("field", FIELDS)
def test_garbage_in_a_field_is_refused_by_file_and_field_or_harmless(field, family):
    """No other error may come out, and a config that is accepted can be computed with."""
    base = {"model_type": family, "architectures": None, "use_sliding_window": True}
    for value in GARBAGE:
        given = {**base, field: value}
        if field in ("max_window_layers", "layer_types"):
            given["sliding_window"] = 8
        try:
            config = read(**given)
        except CheckpointError as error:
            assert error.where.startswith("some/config.json: "), f"{value!r}: {error}"
            continue
        except Exception as error:
            pytest.fail(f"{field} = {value!r}: {type(error).__name__}: {error}")
        assert all(math.isfinite(f) for f in config.rope.inverse_frequencies(config.head_dim))
        assert all(w is None or w > 0 for w in config.windows)
        assert all(isinstance(e, int) for e in config.eos_ids)


SCALING = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
           "rope_theta")  # fmt: skip


@pytest.mark.parametrize("field", SCALING)
def test_garbage_in_rope_parameters_is_refused_or_harmless(field):
    good = {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
    }  # fmt: skip
    for value in GARBAGE:
        try:
            config = read(rope_parameters={**good, field: value})
            frequencies = config.rope.inverse_frequencies(8)
        except CheckpointError as error:
            assert "rope_parameters" in error.where, f"{value!r}: {error}"
            continue
        except Exception as error:
            pytest.fail(f"{field} = {value!r}: {type(error).__name__}: {error}")
        assert all(math.isfinite(f) and f > 0 for f in frequencies), f"{field} = {value!r}"


def test_llama3_rope_without_its_context_is_refused():
    with pytest.raises(CheckpointError) as caught:
        read(rope_parameters={"rope_type": "llama3", "factor": 8.0})
    assert "original_max_position_embeddings" in str(caught.value)


def test_equal_frequency_factors_do_not_divide_by_zero():
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64}  # fmt: skip
    try:
        frequencies = read(rope_parameters=rope).rope.inverse_frequencies(64)
    except CheckpointError as error:
        assert "rope_parameters" in error.where
        return
    assert all(math.isfinite(f) for f in frequencies)


# -- the file --------------------------------------------------------------------------------------
def test_a_config_file_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(raw_config()))
    assert read_config(tmp_path) == raw_config()


def test_a_directory_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "nothing", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(CheckpointError, match="is not a directory") as caught:
            read_config(path)
        assert caught.value.where == str(path)
        assert caught.value.hint


def test_a_directory_without_a_config_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no config\.json") as caught:
        read_config(tmp_path)
    assert caught.value.where == str(tmp_path)
    assert "tokenizer.json" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"{", b"[1", b"\xff\xfe{}", b"{'a': 1}"])
def test_a_config_that_is_not_json_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        read_config(tmp_path)
    assert caught.value.where == str(tmp_path / "config.json")


@pytest.mark.parametrize("content", ["[]", "3", '"llama"', "null"])
def test_a_config_that_is_no_object_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match="holds no JSON object"):
        read_config(tmp_path)


def test_a_config_that_is_a_directory_is_named(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        read_config(tmp_path)
    assert caught.value.where == str(tmp_path / "config.json")
