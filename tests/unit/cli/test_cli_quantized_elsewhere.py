"""The commands on a checkpoint that another tool quantized."""

from __future__ import annotations

import dataclasses
import json

import pytest

from foreign_checkpoints import FOREIGN, write_both


@pytest.fixture
def theirs(tmp_path):
    foreign = FOREIGN["modelopt-fp8"]
    config = foreign.config | {"kv_cache_scheme": {"num_bits": 8, "type": "int"}}
    return write_both(tmp_path, dataclasses.replace(foreign, config=config))[0]


def test_quantize_keeps_its_codes_and_says_what_is_not_used(asterope, theirs, tmp_path):
    ended = asterope("quantize", theirs, "-o", "ours")
    assert ended.code == 0
    assert "fp8_tensor weights, fp8 activations" in ended.err
    assert "quantized KV cache" in ended.err
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert written["quantization_config"]["format"] == "float-quantized"
    again = asterope("quantize", "ours", "-o", "again", "--json")
    assert again.json["notes"] == []
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("ours", "again")]
    assert files[0] == files[1]


def test_it_is_scored_as_it_is(asterope, theirs):
    scored = asterope("eval", theirs, "--max-text-tokens", 64, "--context", 32, "--json")
    assert [row["format"] for row in scored.json["rows"]] == ["original"]


def test_it_is_continued_and_not_quantized_to_another_format(asterope, theirs):
    assert asterope("generate", theirs, "ab", "--max-new-tokens", 2).code == 0
    assert "already quantized" in asterope("quantize", theirs, "-o", "b", "--format", "mxfp4").error
