"""A broken-off quantization goes on behind the layers that were done, to the same bytes."""

from __future__ import annotations

import pytest
import torch

from asterope.errors import OutputError
from asterope.llm import KeptLayers, load_model, quantize_layers
from asterope.quant import Mix, QuantizedLinear, algorithm, scheme
from llm_checkpoints import raw_config, write_checkpoint

CONFIG = raw_config(
    hidden_size=64, intermediate_size=96, num_attention_heads=4, num_hidden_layers=3,
    attention_bias=True,
)  # fmt: skip
PLACES = ("qkv", "output", "gate_up", "down")
NORMS = ("attention_norm", "mlp_norm")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = write_checkpoint(tmp_path_factory.mktemp("model") / "model", CONFIG)
    return load_model(directory, dtype="float32")


@pytest.fixture(scope="module")
def windows(model):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, model.config.vocab_size, (4, 16), generator=generator)


class KilledError(Exception):
    pass


def quantized(model, windows, kept, plan="nvfp4+h", *, until=None):
    """Quantize; return the model, and which layers were computed."""
    written = []
    keep = kept.keep

    def note(index, layer, few_tokens):
        keep(index, layer, few_tokens)
        written.append(index)
        if index == until:
            raise KilledError

    kept.keep = note
    plan = scheme(plan) if isinstance(plan, str) else plan
    made = quantize_layers(model, plan, algorithm("awq_gptq"), windows, kept=kept)
    return made, written


def tensors_of(linear):
    """Tensors of a plain or a quantized layer by name."""
    if isinstance(linear, QuantizedLinear):
        return linear.tensors
    named = {"weight": linear.weight, "bias": linear.bias}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def bytes_of(model):
    for layer in model.layers:
        for place in PLACES:
            for name, tensor in tensors_of(getattr(layer, place)).items():
                yield f"{place}.{name}", tensor.contiguous().view(torch.uint8)
        yield from ((name, getattr(layer, name).contiguous().view(torch.uint8)) for name in NORMS)


def same(a, b):
    pairs = list(zip(bytes_of(a), bytes_of(b), strict=True))
    assert len(pairs) > 3 * 10
    return all(x[0] == y[0] and torch.equal(x[1], y[1]) for x, y in pairs)


MIX = Mix.everywhere(scheme("mxfp4"), 3).replaced(0, "gate_up", None).replaced(2, "qkv", None)


@pytest.mark.parametrize(
    "plan",
    [
        *(
            pytest.param(plan, marks=pytest.mark.slow)
            for plan in ("nvfp4+h", "mxfp4+r4", "nvfp4/same+r4")
        ),
        "mxfp6",
        pytest.param(MIX, id="mix", marks=pytest.mark.slow),
    ],
)
def test_what_was_done_is_not_done_again(model, windows, tmp_path, plan):
    whole, _ = quantized(model, windows, KeptLayers(tmp_path / "whole", "a"), plan)
    with pytest.raises(KilledError):
        quantized(model, windows, KeptLayers(tmp_path / "part", "a"), plan, until=1)
    again, written = quantized(model, windows, KeptLayers(tmp_path / "part", "a"), plan)
    assert written == [2]
    assert same(again, whole)
    assert torch.equal(*(m.forward(windows, m.new_cache(4, 16)) for m in (again, whole)))


@pytest.mark.slow
def test_layers_of_something_else_and_damaged_ones_are_done_again(model, windows, tmp_path):
    whole, _ = quantized(model, windows, KeptLayers(tmp_path, "a"))
    (tmp_path / "layer-00001.safetensors").write_bytes(b"half")
    again, written = quantized(model, windows, KeptLayers(tmp_path, "a"))
    assert written == [1]
    assert same(again, whole)
    _, written = quantized(model, windows, KeptLayers(tmp_path, "b"))
    assert written == [0, 1, 2]
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_place_that_cannot_be_written_is_named(model, windows, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="layer-00000"):
        quantized(model, windows, KeptLayers(tmp_path / "file", "a"))
