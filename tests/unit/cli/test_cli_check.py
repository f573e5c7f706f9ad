"""`asterope check` runs a script and says what its kernels do wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

SCRIPT = """
import sys

import torch
import triton
import triton.language as tl


@triton.jit
def fill(y_ptr, BLOCK: tl.constexpr):
    tl.store(y_ptr + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), 1.0)


fill[(4,)](torch.zeros(int(sys.argv[1])), BLOCK=32)
"""


def check(tmp_path, size):
    """Run apart: what torch writes is watched from the import of Triton on."""
    script = tmp_path / "fill.py"
    script.write_text(SCRIPT)
    main = "import sys; from asterope.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "check", str(script), str(size)]
    env = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "triton")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.mark.slow
def test_a_right_script_ends_well(tmp_path):
    done = check(tmp_path, 128)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no kernel did anything wrong" in done.stderr


@pytest.mark.slow
def test_a_wrong_access_is_named_and_ends_with_wrong_input(tmp_path):
    done = check(tmp_path, 100)
    assert done.returncode == 2
    assert "fill.py:11:" in done.stderr
    assert "program (3, 0, 0) writes y_ptr[100]" in done.stderr
    assert "hint: mask the access off" in done.stderr
