"""Directories that appear whole or not at all, and what killed processes leave of them."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from asterope.api.staging import staged

FILL = """
import pathlib, signal
from asterope.api.staging import staged
with staged(pathlib.Path("out")) as staging:
    (staging / "half").write_text("half")
    print(flush=True)
    signal.pause()
"""


@pytest.fixture
def filling(tmp_path):
    """A process that is filling the directory `out`."""
    process = subprocess.Popen(
        [sys.executable, "-c", FILL], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_directory_appears_when_the_block_ends(tmp_path):
    with staged(tmp_path / "deep" / "out") as staging:
        (staging / "file").write_text("whole")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "file").read_text() == "whole"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_nothing_is_left_of_a_block_that_fails(tmp_path):
    with pytest.raises(RuntimeError), staged(tmp_path / "out"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path, filling):
    filling.send_signal(signal.SIGKILL)
    filling.wait()
    assert len(list(tmp_path.iterdir())) == 1
    with staged(tmp_path / "out"):
        assert len(list(tmp_path.iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_living_process_fills_is_left_alone(tmp_path, filling):
    assert filling.poll() is None
    with staged(tmp_path / "out"):
        assert len(list(tmp_path.iterdir())) == 2
    (left,) = tmp_path.glob(".out.*")
    assert (left / "half").read_text() == "half"
