"""Checkpoints that `transformers` wrote are run as they are."""

from __future__ import annotations

import json

import pytest
import torch

pytestmark = pytest.mark.slow
SIZES = {
    "vocab_size": 320,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


@pytest.mark.parametrize(("family", "more"), [("Llama", {}), ("Qwen3", {"head_dim": 32})])
def test_run_takes_what_transformers_saves(family, more, asterope, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES, **more, dtype="bfloat16")
    model = getattr(transformers, f"{family}ForCausalLM")(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "theirs")
    ended = asterope("run", "theirs", "--format", "mxfp4", "--max-text-tokens", 256, "--json")
    assert ended.json["estimate"]["model"]["family"] == family.lower()
    assert [row["format"] for row in ended.json["accuracy"]["rows"]][:2] == ["original", "mxfp4"]
    written = json.loads((tmp_path / "asterope-report" / "report.json").read_text())
    assert written == ended.json
