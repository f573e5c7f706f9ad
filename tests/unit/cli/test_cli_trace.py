"""`asterope trace` runs a script as Python would, and times what it launches."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("triton")

SCRIPT = """
import sys

import torch
import triton
import triton.language as tl


@triton.jit
def double(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(y_ptr + at, tl.exp(x) + x, mask=at < n)


if __name__ == "__main__":
    print("said", sys.argv[1:])
    x = torch.arange(100.0)
    for launches in range(int(sys.argv[1])):
        double[(4,)](x, torch.empty_like(x), 100, BLOCK=32)
    if "--fail" in sys.argv:
        raise ValueError("on purpose")
"""
LINES = SCRIPT.splitlines()


@pytest.fixture
def script(tmp_path, monkeypatch):
    # Triton's cache keeps the lines of the file it first saw a kernel in.
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    path = tmp_path / "kernels.py"
    path.write_text(SCRIPT)
    return path


def test_each_launch_has_grid_time_bytes_and_bound(asterope, script):
    ended = asterope("trace", "--json", script, "2")
    assert ended.code == 0
    launches = ended.json["launches"]
    assert [(launch["kernel"], launch["grid"]) for launch in launches] == [
        ("double", [4, 1, 1])
    ] * 2
    assert all(launch["time_s"] >= launch["roofline_s"] > 0 for launch in launches)
    assert {launch["hbm_bytes"] for launch in launches} == {2 * 4 * 100}
    assert ended.json["time_s"] == pytest.approx(sum(launch["time_s"] for launch in launches))
    assert "said ['2']" in ended.err


def test_lines_are_those_of_the_users_source(asterope, script):
    ended = asterope("trace", "--json", script, "1")
    (launch,) = ended.json["launches"]
    found = {}
    for line in launch["lines"]:
        file, number, _ = line["loc"].rsplit(":", 2)
        assert file == str(script)
        found.setdefault(LINES[int(number) - 1].split("(")[0].strip(), []).append(line["engine"])
    assert "load" in found["x = tl.load"]
    assert {"vector", "store"} <= set(found["tl.store"])


def test_the_table_shows_the_source_beside_its_share(asterope, script):
    out = asterope("trace", script, "1").out
    assert "1 launches" in out
    assert "tl.store(y_ptr + at, tl.exp(x) + x, mask=at < n)" in out


def test_perfetto_trace_is_written(asterope, script, tmp_path):
    asterope("trace", "--perfetto", tmp_path / "t.json", script, "1")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert any(event.get("name") == "load x_ptr" for event in events)


def test_a_page_with_pictures_is_written(asterope, script, tmp_path):
    ended = asterope("trace", "--report", tmp_path / "t.html", script, "2")
    assert ended.code == 0
    text = (tmp_path / "t.html").read_text()
    assert "kernels.py on maia200:bench" in text
    assert 'id="script-occupancy"' in text
    assert "roofline-chart" not in text


def test_a_script_that_fails_still_shows_what_it_launched(asterope, script):
    ended = asterope("trace", script, "1", "--fail")
    assert ended.code == 2
    assert "double" in ended.out
    assert "ValueError: on purpose" in ended.err
    assert "runpy" not in ended.err


def test_what_is_no_script_is_refused(asterope, tmp_path):
    ended = asterope("trace", tmp_path / "absent.py")
    assert ended.code == 2
    assert "absent.py" in ended.err


def test_a_chip_whose_inside_is_not_public_is_timed_by_its_roofline(asterope, script):
    ended = asterope("trace", "--json", "--chip", "h200", script, "1")
    (launch,) = ended.json["launches"]
    assert launch["time_s"] == launch["roofline_s"] > 0
    assert launch["lines"] == []


def test_a_script_without_launches_says_so(asterope, script):
    ended = asterope("trace", script, "0")
    assert (ended.code, ended.out) == (0, "")
    assert "launched no Triton kernel" in ended.err
