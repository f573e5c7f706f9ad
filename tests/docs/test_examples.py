"""Every example runs and prints what is recorded beside it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LONG = ("04_quantize_a_model",)
SCRIPTS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in LONG else [])
    for path in sorted(EXAMPLES.glob("*.py"))
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_example_prints_what_is_recorded(script, capsys, update_golden, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")
    printed, recorded = capsys.readouterr().out, script.with_suffix(".out")
    if update_golden:
        recorded.write_text(printed)
    assert printed == recorded.read_text()
