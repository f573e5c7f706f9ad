"""Progress: to standard error only, a line a stage in logs, bars on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("asterope"))


def test_a_log_gets_one_line_a_stage(asterope, checkpoint):
    ended = asterope(
        "run", checkpoint, "--format", "mxfp4", "--formats", "", "--compare", "", "--fidelity",
        "roofline", "--max-text-tokens", 64, "--max-new-tokens", 1, "--json",
    )  # fmt: skip
    stages = ended.err.splitlines()
    assert stages[:4] == ["load", "quantize to mxfp4", "score", "generate"]
    assert len(stages) == len(set(stages))


@pytest.mark.slow
def test_a_terminal_gets_bars_and_data_stays_clean(checkpoint, tmp_path):
    ours, theirs = pty.openpty()
    command = [PROGRAM, "quantize", str(checkpoint), "--out", str(tmp_path / "new"), "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"}
    ) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
        data = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0
    assert data.startswith(b"{")
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "start" in words
    assert "save" in words
    assert "100 %" in words


def _read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says that the other side has closed by an error.
        return b""
