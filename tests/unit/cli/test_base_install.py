"""What a base install can do: all that needs no torch; for the rest it says what to install."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

WITHOUT_EXTRA = """
import sys
for name in ("torch", "triton", "safetensors", "tokenizers", "plotly"):
    sys.modules[name] = None
from asterope.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run(*args):
    command = [sys.executable, "-c", WITHOUT_EXTRA, *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "args",
    [
        ["chips", "--json"],
        ["chips", "show", "h200", "--json"],
        ["models", "--json"],
        ["cost", "--tokens-per-s", "12000", "--chip", "h200", "--json"],
    ],
    ids=" ".join,
)
def test_chips_models_and_the_cost_of_a_speed_need_no_torch(args):
    done = run(*args)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.parametrize(
    "args",
    [
        ["run"],
        ["quantize", "x", "-o", "y"],
        ["train", "x", "-o", "y"],
        ["eval", "x"],
        ["generate", "x", "y"],
        ["simulate", "qwen3-8b"],
        ["cost", "qwen3-8b"],
    ],
    ids=" ".join,
)
def test_what_needs_torch_says_how_to_install_it(args):
    done = run(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    first, last = done.stderr.splitlines()
    assert first == f"error: asterope {args[0]}: needs torch, which is not installed"
    assert last == "hint: pip install 'asterope[torch]'"
