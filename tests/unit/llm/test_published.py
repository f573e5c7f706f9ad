from __future__ import annotations

import re
import tomllib
from importlib import resources
from typing import Any

import pytest

from asterope.chips import Confidence
from asterope.errors import ConfigError, UnsupportedError
from asterope.llm.parameters import COUNTED_MODEL_TYPES, count_parameters
from asterope.llm.published import published_config, published_model, published_names

# Every matrix; those of one token; those of one token without the input table. Computed apart from
# this package from the same published configurations, in the project's models.json of 2026-11, and
# those of DeepSeek-V2-Lite by hand.
DERIVED = {
    "deepseek-v2-lite": (15706357760, 2661023744, 2451308544),
    "deepseek-v3": (671025397760, 37551276032, 36624596992),
    "deepseek-v3.2": (671025397760, 37551276032, 36624596992),
    "glm-4.5": (352795525120, 33629962240, 32854016000),
    "glm-5": (743179026432, 41052536832, 40100954112),
    "gpt-oss-120b": (116788838400, 5710233600, 5131100160),
    "gpt-oss-20b": (20907786240, 4186275840, 3607142400),
    "kimi-k2": (1026407202816, 32860471296, 31686066176),
    "llama-2-70b": (68975329280, 68975329280, 68713185280),
    "llama-2-7b": (6738149376, 6738149376, 6607077376),
    "llama-3-70b": (70552387584, 70552387584, 69501714432),
    "llama-3.1-405b": (405849243648, 405849243648, 403747897344),
    "llama-3.1-70b": (70552387584, 70552387584, 69501714432),
    "llama-3.1-8b": (8029995008, 8029995008, 7504658432),
    "minimax-m2.5": (228688920576, 11029708800, 10415112192),
    "mistral-7b-v0.1": (7241465856, 7241465856, 7110393856),
    "mixtral-8x22b": (140619939840, 39151337472, 38954729472),
    "mixtral-8x7b": (46702526464, 12879659008, 12748587008),
    "phi-4": (14659092480, 14659092480, 14145290240),
    "qwen2.5-72b": (72704065536, 72704065536, 71458357248),
    "qwen3-235b-a22b": (235092836352, 22189965312, 21567635456),
    "qwen3-30b-a3b": (30531911680, 3352821760, 3041656832),
    "qwen3-32b": (32761446400, 32761446400, 31983534080),
    "qwen3-8b": (8190427136, 8190427136, 7568097280),
    "qwen3-coder-480b-a35b": (480154091520, 35473981440, 34540486656),
}
# That table leaves out the attention indexers, which this package counts: per layer, index heads
# of 128 out of the query's latent, one key of 128, and one weight for each head.
INDEXER = {
    "deepseek-v3.2": 61 * (1536 * 64 * 128 + 7168 * (128 + 64)),
    "glm-5": 78 * (2048 * 32 * 128 + 6144 * (128 + 32)),
}
UNITS = {"B": 10**9, "T": 10**12}


def test_the_list_is_sorted_and_complete() -> None:
    assert published_names() == tuple(DERIVED)


@pytest.mark.parametrize("name", published_names())
def test_counted_parameters_are_those_derived_from_the_published_shape(name: str) -> None:
    count = count_parameters(published_config(name))
    indexer = INDEXER.get(name, 0)
    assert (count.total, count.active, count.multiplied) == tuple(
        expected + indexer for expected in DERIVED[name]
    )


@pytest.mark.parametrize("name", published_names())
def test_counted_parameters_are_the_published_size(name: str) -> None:
    count, model = count_parameters(published_config(name)), published_model(name)
    if model.params_published is not None:
        published = float(model.params_published[:-1]) * UNITS[model.params_published[-1]]
        assert count.total == pytest.approx(published, rel=0.015)
    if model.active_published is not None:
        published = float(model.active_published[:-1]) * UNITS[model.active_published[-1]]
        # Some makers count the input table as active and some do not; all round.
        assert count.multiplied * 0.97 < published < count.active * 1.03


@pytest.mark.parametrize("name", published_names())
def test_counted_parameters_are_those_that_transformers_builds(name: str, hugging: Any) -> None:
    config = published_config(name) | {"num_hidden_layers": 4}
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:4]
    assert count_parameters(config).total == hugging(config)


@pytest.fixture(scope="module")
def hugging() -> Any:
    """Build a model without storage and count its matrices."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    def count(config: dict[str, Any]) -> int:
        fields = {key: value for key, value in config.items() if key != "quantization_config"}
        model_type = fields.pop("model_type").replace("kimi_k2", "deepseek_v3")
        if model_type == "deepseek_v2":
            fields.setdefault("q_lora_rank", None)  # as the original says; nulls are left out here
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**fields))
        return sum(
            weight.numel()
            for name, weight in model.named_parameters()
            if weight.ndim > 1 and not name.endswith("bias")
        )

    return count


@pytest.mark.parametrize("name", published_names())
def test_every_model_says_where_it_is_from(name: str) -> None:
    model = published_model(name)
    assert model.name == name
    assert len(model.source) > 30
    assert model.confidence in {Confidence.PUBLISHED, Confidence.SECONDARY}


@pytest.mark.parametrize("name", published_names())
def test_every_config_has_the_fields_of_a_hugging_face_config(name: str) -> None:
    config = published_config(name)
    assert config["model_type"] in COUNTED_MODEL_TYPES
    assert config["architectures"][0].endswith("ForCausalLM")
    assert config["hidden_act"] == "silu"
    assert config["tie_word_embeddings"] is False
    for key in ("rms_norm_eps", "max_position_embeddings", "num_key_value_heads"):
        assert config[key] > 0, key
    if "kv_lora_rank" not in config:
        assert config["head_dim"] in {64, 128}
    if "layer_types" in config:
        assert len(config["layer_types"]) == config["num_hidden_layers"]


def test_a_mixture_of_experts_spells_its_fields_as_its_family_does() -> None:
    assert published_config("mixtral-8x7b")["num_local_experts"] == 8
    assert published_config("qwen3-235b-a22b")["num_experts"] == 128
    assert published_config("deepseek-v3")["n_routed_experts"] == 256
    assert published_config("gpt-oss-20b")["layer_types"][:2] == [
        "sliding_attention",
        "full_attention",
    ]


def test_the_file_has_no_entry_or_source_that_is_not_used() -> None:
    file = resources.files("asterope.llm") / "published.toml"
    tree = tomllib.loads(file.read_text(encoding="utf-8"))
    sources = tree.pop("sources")
    assert set(tree) == set(published_names())
    assert set(sources) <= {row["source"] for row in tree.values()}


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("llama-3.3-70b", "llama-3.1-70b"),
        ("Llama 3.1 70B", "llama-3.1-70b"),
        ("deepseek_r1", "deepseek-v3"),
        ("QWEN3-8B", "qwen3-8b"),
    ],
)
def test_a_model_answers_to_aliases_and_any_spelling(spelling: str, name: str) -> None:
    assert published_model(spelling).name == name
    assert published_config(spelling) == published_config(name)


def test_no_two_models_answer_to_one_spelling() -> None:
    models = [published_model(name) for name in published_names()]
    spellings = [
        re.sub(r"[^a-z0-9]", "", word) for model in models for word in (model.name, *model.aliases)
    ]
    assert len(spellings) == len(set(spellings))


def test_llama_3_and_3_1_differ_in_context_only() -> None:
    old, new = published_config("llama-3-70b"), published_config("llama-3.1-70b")
    assert (old.pop("max_position_embeddings"), new.pop("max_position_embeddings")) == (
        8192,
        131072,
    )
    assert new.pop("rope_scaling")["rope_type"] == "llama3"
    assert old == new


def test_a_config_is_the_callers_to_change() -> None:
    mine = published_config("llama-3.1-8b")
    mine["rope_scaling"]["factor"] = 1.0
    assert published_config("llama-3.1-8b")["rope_scaling"]["factor"] == 8.0


def test_an_unknown_model_gets_the_nearest_name_and_the_list() -> None:
    with pytest.raises(ConfigError, match=r"^model: 'llama-3.1-71b' is not a published") as caught:
        published_config("llama-3.1-71b")
    assert caught.value.hint.startswith("did you mean 'llama-3.1-70b'?")
    assert all(name in caught.value.hint for name in published_names())
    with pytest.raises(ConfigError) as caught:
        published_model("#")
    assert caught.value.hint.startswith("the published models are deepseek-v2-lite,")


def test_tied_embeddings_are_counted_once_and_still_multiplied_by() -> None:
    config = published_config("llama-3.1-8b")
    table = config["vocab_size"] * config["hidden_size"]
    untied, tied = (
        count_parameters(config),
        count_parameters(config | {"tie_word_embeddings": True}),
    )
    assert tied.total == tied.active == tied.multiplied == untied.total - table
    assert tied.multiplied == untied.multiplied


@pytest.mark.parametrize(
    ("field", "value", "num_moe_layers"),
    [
        ("mlp_only_layers", [0, 5], 46),
        ("decoder_sparse_step", 2, 24),
        ("first_k_dense_replace", 3, 45),
        ("moe_layer_freq", 4, 12),
    ],
)
def test_every_way_to_make_a_layer_dense_is_counted(
    field: str, value: object, num_moe_layers: int
) -> None:
    config = published_config("qwen3-30b-a3b")
    hidden, experts = config["hidden_size"], 3 * config["moe_intermediate_size"] * 128 + 128
    dense = 3 * config["intermediate_size"]
    expected = count_parameters(config).total - (48 - num_moe_layers) * hidden * (experts - dense)
    assert count_parameters(config | {field: value}).total == expected


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("hidden_size", None, "is missing from the model's configuration"),
        ("vocab_size", "many", "'many' is not a whole number from 0 to"),
        ("num_attention_heads", True, "True is not a whole number from 0 to"),
        ("intermediate_size", -1, "-1 is not a whole number from 0 to"),
        ("num_hidden_layers", 10**9, "1000000000 is not a whole number from 0 to 100000"),
    ],
)
def test_a_field_that_is_no_count_is_named(field: str, value: object, what: str) -> None:
    config = published_config("llama-3.1-8b") | {field: value}
    with pytest.raises(ConfigError, match=f"^{field}: {what}"):
        count_parameters(config)


def test_a_list_of_dense_layers_that_is_no_list_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^mlp_only_layers: 5 is not a list of layers"):
        count_parameters(published_config("qwen3-30b-a3b") | {"mlp_only_layers": 5})


def test_an_architecture_of_another_build_is_refused_by_name() -> None:
    with pytest.raises(
        UnsupportedError, match=r"^model_type: .*'gpt2' cannot be counted"
    ) as caught:
        count_parameters({"model_type": "gpt2", "hidden_size": 768})
    assert "llama" in caught.value.hint
