"""Models whose places are quantized differently: made, run, saved, loaded, timed."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

import asterope as ast
from asterope.errors import ConfigError
from asterope.llm import PlainLinear
from asterope.quant import MODULES, Mix, QuantizedLinear, scheme
from tokenized_checkpoint import SMALL, write_tokenized

TEXT = "def f(x):\n    return x + 1\n" * 30


def mix(*rows):
    return Mix(tuple(tuple(scheme(s) for s in row.split()) for row in rows))


MIXED = mix("mxfp4 none fp8 nvfp4", "none mxfp8 mxfp4 mxfp6")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A checkpoint of two layers."""
    directory = tmp_path_factory.mktemp("two") / "two"
    return ast.load(write_tokenized(directory, {**SMALL, "num_hidden_layers": 2}), dtype="bfloat16")


def test_each_place_is_what_its_own_scheme_makes_of_it(original):
    mixed = original.quantize(MIXED)
    for index, layer in enumerate(mixed.model.layers):
        for place, chosen in MIXED.of(index).items():
            found = getattr(layer, place)
            if chosen is None:
                assert isinstance(found, PlainLinear)
                assert torch.equal(
                    found.weight, getattr(original.model.layers[index], place).weight
                )
            else:
                alike = getattr(original.quantize(chosen.name).model.layers[index], place)
                assert found.scheme == chosen
                assert torch.equal(found.dequantize(), alike.dequantize())


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["rtn", "awq_gptq"])
def test_a_mixed_checkpoint_loads_back_identically(algorithm, original, tmp_path):
    mixed = original.quantize(MIXED, algorithm=algorithm, calibration_windows=1)
    again = ast.load(mixed.save(tmp_path / "mixed"))
    assert again.scheme == MIXED
    assert "mix of mxfp4 in 2" in again.model.scheme
    assert again.perplexity(TEXT) == mixed.perplexity(TEXT)
    assert again.model.weight_bytes == mixed.model.weight_bytes
    assert ast.from_config(tmp_path / "mixed").scheme == MIXED


def test_a_mix_of_one_scheme_is_saved_as_that_scheme_is(original, tmp_path):
    everywhere = Mix.everywhere(scheme("mxfp4"), 2)
    for name, plan in (("mix", everywhere), ("plain", "mxfp4")):
        original.quantize(plan).save(tmp_path / name)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "mix" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
    assert original.quantize(Mix.everywhere(None, 2)) is original


def test_layers_that_were_ignored_stay_so_when_saved_again(original, tmp_path):
    part = mix("mxfp4 none mxfp4 mxfp4", "mxfp4 mxfp4 mxfp4 none")
    first = ast.load(original.quantize(part).save(tmp_path / "first"))
    assert ast.load(first.save(tmp_path / "second")).scheme == part
    ignored = json.loads((tmp_path / "second/config.json").read_text())["quantization_config"]
    assert ignored["ignore"] == [
        "model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj", "lm_head",
    ]  # fmt: skip


def test_a_mix_of_other_layers_is_refused(original):
    with pytest.raises(ConfigError, match="a mix of 3 layers does not fit a model of 2"):
        original.quantize(Mix.everywhere(None, 3).replaced(0, "qkv", scheme("mxfp4")))


@pytest.mark.parametrize(("chip", "fidelity"), [("maia200", "tile"), ("h100", "operator")])
def test_a_mixed_step_takes_what_its_places_take(chip, fidelity):
    """Timed with and without weights, and place by place beside steps of one scheme."""
    raw = {**SMALL, "num_hidden_layers": 3, "max_position_embeddings": 512}
    shapes = ast.from_config(raw, dtype="bfloat16")
    names = ("bf16", "mxfp8", "fp8/same") if chip == "maia200" else ("bf16", "fp8/same")

    def by_place(model):
        step = model.simulate(chip, batch=2, context=128, fidelity=fidelity).step
        times = {}
        for launch in step.launches:
            times.setdefault(launch.tag, []).append(launch.result.time_ps)
        return step, times

    alone = {name: by_place(shapes.quantize(name))[1] for name in names}
    rows = [names[i % len(names)] for i in range(12)]
    mixed = mix(*(" ".join(rows[i : i + 4]) for i in (0, 4, 8)))
    step, times = by_place(shapes.quantize(mixed))
    for place in MODULES:
        expected = []
        for layer in range(3):
            found = alone[rows[4 * layer + list(MODULES).index(place)]][place]
            per_layer = len(found) // 3
            expected += found[layer * per_layer : (layer + 1) * per_layer]
        assert times[place] == expected
    assert round(step.time_s * 1e12) == sum(launch.result.time_ps for launch in step.launches)


@pytest.fixture(scope="session")
def transformers():
    """Import transformers, which is slow and warns about its own dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers as module
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        return module


@pytest.mark.slow
def test_transformers_loads_a_mix_to_the_same_weights(original, transformers, tmp_path):
    mixed = original.quantize(MIXED)
    mixed.save(tmp_path / "mixed")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "mixed", dtype=torch.bfloat16
        )
        tokens = torch.tensor([list(TEXT[:40].encode())])
        expected = theirs(tokens).logits.float()  # unpacks the weights, too
    for index, layer in enumerate(mixed.model.layers):
        for place, names in MODULES.items():
            found = getattr(layer, place)
            is_quantized = isinstance(found, QuantizedLinear)
            ours = found.dequantize() if is_quantized else found.weight.float()
            modules = [theirs.get_submodule(f"model.layers.{index}.{name}") for name in names]
            weight = torch.cat([module.weight.detach().float() for module in modules])
            # They keep row scales, and products with upper ones, in bf16.
            torch.testing.assert_close(weight, ours, rtol=2**-7, atol=0)
    got = mixed.model.forward(tokens, mixed.model.new_cache(*tokens.shape))
    assert float((got - expected).abs().max()) < 0.05 * float(expected.abs().max())
