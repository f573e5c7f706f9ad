"""Training a checkpoint for a format: what is trained, what comes out, what is refused."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings

import pytest
import torch

import asterope as ast
from asterope import api, llm
from asterope.errors import CheckpointError, ConfigError, UnsupportedError
from asterope.quant import algorithm, prepare_qat, quantized_layers, scheme
from llm_checkpoints import LATENT, LLAMA, MIXTURES, tensors_of, write_checkpoint
from tokenized_checkpoint import SMALL, write_tokenized

TEXT = "def f(x):\n    return x + 1\n" * 50
PLAN = llm.TrainingPlan(steps=4, windows_per_step=1, evaluate_every=2, relative_rate=0.01)
FAMILIES = {
    "llama": {**SMALL, "num_hidden_layers": 2},
    "qwen3": {**SMALL, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"],
              "head_dim": 16, "tie_word_embeddings": True},
    "qwen2": {**SMALL, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
    "mixtral": {**SMALL, "model_type": "mixtral", "architectures": ["MixtralForCausalLM"],
                **MIXTURES["mixtral"]},
    "qwen3_moe": {**SMALL, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"],
                  "num_hidden_layers": 2, **MIXTURES["qwen3_moe"]},
    "qwen2_moe": {**SMALL, "model_type": "qwen2_moe", "architectures": ["Qwen2MoeForCausalLM"],
                  "num_hidden_layers": 2, "mlp_only_layers": [0], **MIXTURES["qwen2_moe"]},
    "olmoe": {**SMALL, "model_type": "olmoe", "architectures": ["OlmoeForCausalLM"],
              **MIXTURES["olmoe"]},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers  # noqa: F401 - slow, and it warns about its own dependencies


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return file


@pytest.mark.parametrize("family", FAMILIES)
def test_torch_model_computes_what_ours_does(family, tmp_path):
    model = ast.load(write_tokenized(tmp_path / "model", FAMILIES[family]))
    tokens = torch.tensor([list(TEXT[:50].encode())])
    with torch.inference_mode():
        found = api.torch_model(model)(tokens).logits
    expected = model.model.forward(tokens, model.model.new_cache(1, 50))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "fmt",
    [
        *(
            pytest.param(fmt, marks=pytest.mark.slow)
            for fmt in ("mxfp4", "nvfp4/fp8", "fp8", "nvfp4/same", "mxfp4/same+h", "mxfp4+r4")
        ),
        "nvfp4/same+r4",
    ],
)
@pytest.mark.parametrize(
    "family",
    [
        "llama",
        "mixtral",
        *(
            pytest.param(f, marks=pytest.mark.slow)
            for f in (*list(FAMILIES)[1:3], *list(FAMILIES)[4:])
        ),
    ],
)
def test_converted_layers_are_those_of_the_forward_pass_bit_for_bit(family, fmt, tmp_path):
    model = ast.load(write_tokenized(tmp_path / "model", FAMILIES[family]))
    module = prepare_qat(api.torch_model(model), fmt)
    with torch.no_grad():  # as if trained
        for parameter in module.parameters():
            parameter.mul_(1.1)
        module(torch.tensor([list(TEXT[:50].encode())]))
    made = ast.from_trained(model, module)
    stored = ast.load(made.save(tmp_path / "out"))
    assert made.scheme == stored.scheme
    expected = quantized_layers(module)
    for index, layer in enumerate(stored.model.layers):
        for place, pieces in llm.projections(stored.config.at(index)).items():
            parts = ast.quant.split(layer.linears[place], [rows for _, rows, _, _ in pieces])
            for (name, *_), part in zip(pieces, parts, strict=True):
                own = llm.torch_name(stored.config, f"model.layers.{index}.{name}")
                theirs = expected[own].tensors
                for key, tensor in part.tensors.items():
                    assert torch.equal(tensor.view(torch.uint8), theirs[key].view(torch.uint8))
    tokens = torch.tensor([list(TEXT[:50].encode())])
    with torch.inference_mode():
        found = module(tokens).logits
    logits = stored.model.forward(tokens, stored.model.new_cache(1, 50))
    if fmt.startswith("mxfp4+r") or fmt == "mxfp4":  # others may round last bits another way
        assert float((found - logits).norm()) < 1e-2 * float(logits.norm())


def test_training_is_the_same_again_and_ends_where_it_says(model, text):
    one, two = (ast.train(model, "mxfp4/same", text=text, plan=PLAN, start="rtn") for _ in range(2))
    assert one.trained == two.trained
    assert sorted(one.trained.held_out_losses) == [0, 2, 4]
    assert one.model.scheme.name == "mxfp4/mxfp4"
    assert one.model.perplexity(TEXT[:300]) == two.model.perplexity(TEXT[:300])
    assert one.model.algorithm == "qad"
    assert torch.equal(one.model.model.embedding, model.model.embedding)
    assert "trained" in one.model.model.scheme
    again = one.model.quantize("mxfp4/same")
    assert again.perplexity(TEXT[:300]) == model.quantize("mxfp4/same").perplexity(TEXT[:300])


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_experts_are_trained_and_the_router_stays(family, text, tmp_path):
    model = ast.load(write_tokenized(tmp_path / "model", FAMILIES[family]))
    kept = tmp_path / "kept"
    plan = dataclasses.replace(PLAN, relative_rate=0.02)
    whole = ast.train(model, "mxfp4", text=text, plan=plan, start="gptq").model
    with pytest.raises(_KilledError):
        ast.train(
            model, "mxfp4", text=text, plan=plan, start="gptq", kept_in=kept, progress=_killed
        )
    again = ast.train(model, "mxfp4", text=text, plan=plan, start="gptq", kept_in=kept).model
    for mine, theirs, original in zip(
        whole.model.layers, again.model.layers, model.model.layers, strict=True
    ):
        assert torch.equal(mine.down.codes, theirs.down.codes)
        assert torch.equal(mine.router.linear.weight, original.router.linear.weight)
    assert whole.perplexity(TEXT[:300]) == again.perplexity(TEXT[:300])


@pytest.mark.parametrize(
    ("start", "fmt"),
    [
        ("rtn", "mxfp4"),
        ("gptq", "nvfp4"),
        ("awq_gptq", "mxfp4"),
        pytest.param("svdquant", "nvfp4/same+r8", marks=pytest.mark.slow),
    ],
)
def test_training_starts_from_what_an_algorithm_makes(model, text, start, fmt):
    plan = llm.TrainingPlan(steps=1, windows_per_step=1, relative_rate=0.0)
    made = ast.train(model, fmt, text=text, plan=plan, start=start).model
    windows, what = api.text_windows(model, text, num_windows=17, length=512)
    held = len(windows) // 2
    calibration = api.Calibration(algorithm=algorithm(start), windows=windows[held:], what=what)
    expected = api.with_scheme(model, scheme(fmt), None, calibration)
    again = ast.train(model, fmt, text=text, plan=plan, start=expected).model
    for mine, theirs in zip(made.model.layers, expected.model.layers, strict=True):
        assert torch.equal(mine.attention_norm, theirs.attention_norm)
        for place in ("qkv", "output", "gate_up", "down"):
            values = getattr(mine, place).dequantize()
            assert torch.equal(values, getattr(theirs, place).dequantize())
    assert again.perplexity(TEXT[:300]) == made.perplexity(TEXT[:300])


def test_a_router_whose_inputs_are_equalized_goes_with_them(text, tmp_path):
    raw = FAMILIES["mixtral"]
    tensors = tensors_of(raw)
    for name, tensor in tensors.items():
        if name.endswith("post_attention_layernorm.weight"):
            tensor[3] *= 16
    write_checkpoint(write_tokenized(tmp_path / "model", raw), raw, tensors=tensors)
    model = ast.load(tmp_path / "model")
    plan = llm.TrainingPlan(steps=1, windows_per_step=1, relative_rate=0.0)
    start = model.quantize("mxfp4", algorithm="awq_gptq", calibrate=text, calibration_windows=1)
    made = ast.train(model, "mxfp4", text=text, plan=plan, start=start).model
    for mine, theirs, original in zip(
        made.model.layers, start.model.layers, model.model.layers, strict=True
    ):
        assert torch.equal(mine.router.linear.weight, theirs.router.linear.weight)
        assert not torch.equal(mine.router.linear.weight, original.router.linear.weight)


class _KilledError(Exception):
    pass


def _killed(stage, done, total):
    if stage == "train" and done == 3:
        raise _KilledError


def test_a_killed_run_goes_on_to_the_same_model(model, text, tmp_path):
    whole = ast.train(model, text=text, plan=PLAN, start="rtn")
    kept = tmp_path / "kept"
    with pytest.raises(_KilledError):
        ast.train(model, text=text, plan=PLAN, start="rtn", kept_in=kept, progress=_killed)
    seen = []
    again = ast.train(
        model, text=text, plan=PLAN, start="rtn", kept_in=kept, progress=lambda *a: seen.append(a)
    )
    assert seen == [("train", 3, 4), ("train", 4, 4)]
    assert again.trained == whole.trained
    assert again.model.perplexity(TEXT[:300]) == whole.model.perplexity(TEXT[:300])


def test_what_cannot_be_trained_is_refused(model, text, tmp_path):
    with pytest.raises(UnsupportedError, match="cannot be trained"):
        api.torch_model(ast.from_config("qwen3-8b"))
    latent = write_tokenized(tmp_path / "latent", {**SMALL, **LATENT})
    with pytest.raises(UnsupportedError, match="over latents"):
        api.torch_model(ast.load(latent))
    stored = ast.load(model.quantize("mxfp4").save(tmp_path / "stored"))
    with pytest.raises(ConfigError, match="already quantized"):
        ast.train(stored, "mxfp4", text=text, plan=PLAN)
    with pytest.raises(ConfigError, match="nothing to train for"):
        ast.train(model, "bf16", text=text)
    with pytest.raises(ConfigError, match="adds a branch") as caught:
        ast.train(model, "mxfp4", text=text, plan=PLAN, start="svdquant")
    assert caught.value.hint == "train for mxfp4+r32"
    with pytest.raises(ConfigError, match="is nvfp4, not mxfp4"):
        ast.train(model, "mxfp4", text=text, plan=PLAN, start=model.quantize("nvfp4"))
    with pytest.raises(ConfigError, match="is not quantized"):
        ast.train(model, "mxfp4", text=text, plan=PLAN, start=model)
    (tmp_path / "short.txt").write_text(TEXT[:200])
    with pytest.raises(ConfigError, match="too few"):
        ast.train(model, text=tmp_path / "short.txt")


def test_a_module_of_something_else_is_named(model, tmp_path):
    tensors = tensors_of({**SMALL, "num_hidden_layers": 2})
    place = tmp_path / "other"
    write_checkpoint(place, {**SMALL, "num_hidden_layers": 2}, tensors=tensors)
    larger = ast.load(place)
    with pytest.raises(ConfigError, match="is not quantized") as caught:
        ast.from_trained(larger, prepare_qat(api.torch_model(model), "mxfp4"))
    assert caught.value.where == "model.layers.1.self_attn.q_proj"
    with pytest.raises(ConfigError, match="does not share the first factor") as caught:
        ast.from_trained(model, prepare_qat(api.torch_model(model), "mxfp4+r4", fused=()))
    assert caught.value.where == "model.layers.0.self_attn.k_proj"
    module = prepare_qat(api.torch_model(model), "mxfp4")
    with torch.no_grad():
        module.model.norm.weight[3] = float("inf")
    with pytest.raises(CheckpointError, match="is not finite") as caught:
        ast.from_trained(model, module)
    assert caught.value.where == "model.norm.weight"


def test_a_checkpoint_that_lacks_a_tensor_is_named(tmp_path):
    tensors = tensors_of(LLAMA)
    place = write_checkpoint(tmp_path / "whole", LLAMA, tensors=tensors)
    model = ast.load(place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "attention_bias": True}))
    with pytest.raises(CheckpointError, match=r"q_proj\.bias is missing"):
        api.torch_model(model)


def test_without_transformers_the_extra_is_named(model, text, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="needs transformers") as caught:
        ast.train(model, text=text, plan=PLAN)
    assert "asterope[train]" in caught.value.hint


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    config = {**SMALL, "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.M"}}
    place = write_tokenized(tmp_path / "evil", config)
    (place / "evil.py").write_text("raise SystemExit('run')")
    assert type(api.torch_model(ast.load(place))).__name__ == "LlamaForCausalLM"
