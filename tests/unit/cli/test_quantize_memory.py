"""What `asterope quantize` holds of a model while it quantizes it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from llm_checkpoints import raw_config, tensors_of
from tokenized_checkpoint import write_tokenized

pytestmark = pytest.mark.slow

COMMAND = "import sys; from asterope.cli import main; sys.exit(main())"
TEXT = "def f(x):\n    return x + 1\n" * 40


@pytest.mark.parametrize(
    ("layers", "how"),
    [
        (24, ("--format", "mxfp4")),
        (4, ("--recipe", "mxfp4-best", "--calibration-windows", "4")),
        (4, ("--format", "mxfp4", "--kv", "nvfp4", "--calibration-windows", "4")),
    ],
    ids=["rtn", "mxfp4-best", "cache"],
)
def test_it_holds_a_layer_and_not_the_model(tmp_path, layers, how):
    config = raw_config(
        vocab_size=256, hidden_size=512, intermediate_size=1408, num_attention_heads=8,
        num_hidden_layers=layers, dtype="bfloat16",
    )  # fmt: skip
    tensors = tensors_of(config, dtype=torch.bfloat16)
    deep = write_tokenized(tmp_path / "deep", config, tensors=tensors)
    command = [sys.executable, "-c", COMMAND, "quantize", str(deep), *how, "--json"]
    if "--calibration-windows" in how:
        (tmp_path / "text.txt").write_text(TEXT)
        command += ["--calibrate", str(tmp_path / "text.txt")]
    peaks = []
    for name in ("first", "second"):  # the first compiles
        done = subprocess.run(
            [*command, "-o", str(tmp_path / name)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        memory = json.loads(done.stdout)["memory"]
        peaks.append(memory["peak_bytes"])
    assert memory["mapping_bytes"] == (deep / "model.safetensors").stat().st_size
    bound = 1.5 * memory["working_set_bytes"] + memory["mapping_bytes"] + memory["runtime_bytes"]
    assert memory["bound_bytes"] == pytest.approx(bound, abs=1)
    assert 0 < peaks[1] <= bound
    if "--calibration-windows" not in how:  # a third of the files, not all of them
        assert peaks[1] < memory["mapping_bytes"] / 3
