"""What one place loses alone is what the model with that place quantized loses."""

from __future__ import annotations

import json

import pytest
import torch

from asterope.errors import ConfigError
from asterope.llm import (
    KeptLosses,
    Reference,
    evaluate,
    load_model,
    place_losses,
    quantize_layers,
)
from asterope.quant import PLACES, Mix, algorithm, scheme
from llm_checkpoints import raw_config, write_checkpoint

RAW = raw_config(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_hidden_layers=3)
TOKENS = torch.randint(3, 101, (90,), generator=torch.Generator().manual_seed(7)).tolist()
MXFP4, FP8 = scheme("mxfp4"), scheme("fp8/same")
CANDIDATES = {"qkv": (MXFP4,), "output": (), "gate_up": (MXFP4, FP8), "down": (FP8,)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(write_checkpoint(tmp_path_factory.mktemp("model"), RAW))


@pytest.fixture(scope="module")
def windows():
    return torch.randint(3, 101, (4, 24), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["rtn", pytest.param("awq_gptq", marks=pytest.mark.slow)])
def test_a_place_alone_loses_what_the_model_with_it_quantized_does(model, windows, name):
    how, calibrated = algorithm(name), windows if name != "rtn" else None
    reference, seen = Reference(model, TOKENS, context=32), []
    losses = place_losses(
        model, reference, CANDIDATES, how, windows=calibrated,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert [(x.layer, x.place, x.scheme) for x in losses] == [
        (layer, place, chosen)
        for layer in range(3) for place in PLACES for chosen in CANDIDATES[place]
    ]  # fmt: skip
    assert seen[-1] == (24, 24)
    assert sorted(seen) == seen
    for loss in losses:
        mix = Mix.everywhere(None, 3).replaced(loss.layer, loss.place, loss.scheme)
        alone = quantize_layers(model, mix, how, windows)
        expected, others = evaluate(model, {"alone": alone}, TOKENS, context=32)
        assert loss.quality == others["alone"]
        assert loss.quality.kl > 0
        assert reference.quality == expected
        assert reference.score_model(alone) == loss.quality


def test_a_measurement_that_was_killed_goes_on_to_the_same_losses(model, windows, tmp_path):
    reference, file = Reference(model, TOKENS, context=32), tmp_path / "places" / "losses.jsonl"

    def measure(progress=None):
        return place_losses(
            model, reference, CANDIDATES, algorithm("rtn"), kept=KeptLosses(file),
            progress=progress,
        )  # fmt: skip

    def killed(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    def names():
        return [json.loads(line)["of"] for line in file.read_text().splitlines() if line]

    with pytest.raises(KeyboardInterrupt):
        measure(killed)
    first = names()
    assert 0 < len(first) < 12
    with file.open("a") as half:
        half.write('{"of": "2.down: fp8 wei')
    went_on = measure()
    file.write_text(file.read_text().replace('{"of": "2.down: fp8 wei\n', ""))
    assert names()[: len(first)] == first
    assert len(names()) == len(set(names())) == 12
    KeptLosses(file).remove()
    assert went_on == measure()


def test_a_quantized_model_has_no_places_to_try(model, windows):
    reference = Reference(model, TOKENS, context=32)
    part = quantize_layers(model, Mix.everywhere(None, 3).replaced(1, "down", FP8),
                           algorithm("rtn"), windows)  # fmt: skip
    with pytest.raises(ConfigError, match="is quantized already"):
        place_losses(part, reference, CANDIDATES, algorithm("rtn"))
