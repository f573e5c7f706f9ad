"""Places that cannot be written: one line, exit code 2, and nothing half-written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def read_only(tmp_path, asterope):
    """A directory that this process may not write: as root, after giving up its rights."""
    directory = tmp_path / "read-only"
    directory.mkdir(mode=0o555)
    # Whoever has no rights may not be able to import either, so all is imported before.
    for command in (["run"], ["quantize", "--out", "new"], ["simulate"], ["eval"]):
        assert asterope(*command, "no-such-model").code == 2
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    yield directory
    os.seteuid(before)


@pytest.fixture
def file_limit():
    """Make every larger file fail to grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(num_bytes):
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 64 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("only root can make a disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_run_refuses_a_read_only_directory_before_it_loads(asterope, read_only):
    for out in (read_only, read_only / "new" / "report"):
        message = asterope("run", "no-such-model", "--out", out).error
        assert f"{out}: cannot write: Permission denied" in message
    assert "hint: choose another directory" in message


def test_quantize_refuses_a_read_only_directory_before_it_loads(asterope, read_only):
    out = read_only / "new"
    assert (
        f"{out}: cannot write: Permission denied"
        in asterope("quantize", "no-such-model", "--out", out).error
    )


def test_simulate_refuses_a_read_only_directory_before_it_starts(asterope, read_only):
    message = asterope("simulate", "no-such-model", "--trace", read_only / "trace.json").error
    assert "cannot write: Permission denied" in message


def test_a_checkpoint_that_may_not_be_read_is_named(asterope, read_only):
    read_only.chmod(0o000) if os.geteuid() != NOBODY else None
    assert "Permission denied" in asterope("eval", read_only / "model").error


def test_run_refuses_a_place_that_is_a_file(asterope, tmp_path):
    (tmp_path / "file").write_text("kept")
    for out in ("file", "file/report"):
        assert f"{out}: cannot write: Not a directory" in asterope("run", "x", "--out", out).error
    assert (tmp_path / "file").read_text() == "kept"


def test_quantize_does_not_overwrite(asterope, checkpoint, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "thesis.tex").write_text("kept")
    message = asterope("quantize", checkpoint, "--out", "old").error
    assert "old: is there already and not empty" in message
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["thesis.tex"]


def test_run_sees_a_full_disk_before_it_loads(asterope, tiny_disk):
    message = asterope("run", "no-such-model", "--out", tiny_disk / "report").error
    assert "cannot write: No space left on device" in message
    assert list(tiny_disk.iterdir()) == []


def test_quantize_on_a_full_disk_leaves_nothing(asterope, checkpoint, tiny_disk):
    message = asterope(
        "quantize", checkpoint, "--format", "mxfp4", "--out", tiny_disk / "new"
    ).error
    assert "No space left on device" in message
    assert list(tiny_disk.iterdir()) == []


def test_run_sees_that_there_is_no_room_before_it_loads(asterope, tmp_path, file_limit):
    file_limit(100_000)
    assert "report: cannot write: File too large" in asterope("run", "x", "--out", "report").error
    assert list(tmp_path.iterdir()) == []


def test_quantize_without_room_leaves_nothing(asterope, checkpoint, tmp_path, file_limit):
    file_limit(20_000)
    message = asterope("quantize", checkpoint, "--format", "mxfp4", "--out", "new").error
    assert f"{tmp_path / 'new'}: cannot write: " in message
    assert list(tmp_path.iterdir()) == []


def test_simulate_without_room_leaves_no_trace(asterope, checkpoint, tmp_path, file_limit):
    roofline = ("simulate", checkpoint, "--phase", "decode", "--batch", 1, "--fidelity", "roofline")
    assert asterope(*roofline).code == 0  # Its kernels are in the cache now, which may not grow.
    file_limit(1000)
    message = asterope(*roofline, "--trace", "out.json").error
    assert "out.json: cannot write: File too large" in message
    assert list(tmp_path.iterdir()) == []


def test_simulate_refuses_a_trace_that_is_a_directory(asterope, tmp_path):
    assert f"{tmp_path}: is a directory" in asterope("simulate", "x", "--trace", tmp_path).error


def run_in_shell(command, **options):
    program = Path(sys.executable).with_name("asterope")
    return subprocess.run(
        command.format(program), shell=True, capture_output=True, text=True, check=False, **options
    )


def test_a_full_disk_under_standard_output_is_an_error():
    done = run_in_shell("{} chips --json > /dev/full")
    assert done.returncode == 2
    first, last = done.stderr.splitlines()
    assert first == "error: standard output: cannot write: No space left on device"
    assert last.startswith("hint: ")


def test_a_reader_that_stops_is_no_error():
    done = run_in_shell("set -o pipefail; {} chips show maia200 | head -1", executable="/bin/bash")
    assert done.stdout == 'name = "maia200"\n'
    assert done.stderr == ""


def test_an_earlier_report_survives_a_run_that_fails(asterope, checkpoint, tmp_path):
    directory = tmp_path / "asterope-report"
    directory.mkdir()
    for name in ("report.html", "report.json"):
        (directory / name).write_text("older")
    assert "'mxfp5'" in asterope("run", checkpoint, "--format", "mxfp5").error
    assert {path.name: path.read_text() for path in directory.iterdir()} == {
        "report.html": "older",
        "report.json": "older",
    }
