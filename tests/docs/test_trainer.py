"""The example with `transformers.Trainer` runs as it stands in the page."""

from __future__ import annotations

import re
import runpy
import warnings
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "qat.md"


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore"
)  # those of transformers, accelerate and torch among themselves
def test_trainer_trains_a_prepared_model(tmp_path, monkeypatch):
    pytest.importorskip("accelerate")
    [code] = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block.py").write_text(code)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = runpy.run_path("block.py", run_name="__main__")
    assert (tmp_path / "steps" / "checkpoint-4").is_dir()
    before = found["original"].model.layers[0].attention_norm
    stored = found["ast"].load(tmp_path / "trained")
    assert stored.scheme.name == "mxfp4/mxfp4+r8"
    assert stored.model.layers[0].attention_norm.shape == before.shape
