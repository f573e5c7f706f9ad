"""`asterope simulate --sweep`: every combination once, resumed where it stopped, anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asterope import api, chips
from asterope.quant import UNQUANTIZED, Scheme

GRID = """
[[gemm]]
m = [1, 64]
n = 512
k = [512, 1024]
chip = ["h100", "maia100"]
format = "bf16"

[[step]]
model = "llama-3.1-8b"
chip = "h100"
batch = [1, 64]
"""


@pytest.fixture
def sweep(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text(GRID)
    return file


def rerun(sweep, out):
    """Run a sweep; return its rows, and the points that were timed anew."""
    timed = []

    def count(point):
        timed.append(point)
        return api.time_point(point)

    return api.run_sweep(api.read_sweep(sweep), lambda _, left: map(count, left), out=out), timed


def test_every_combination_is_timed_as_it_is_alone(asterope, sweep):
    rows = asterope("simulate", "--sweep", sweep, "--jobs", 1, "--json").json
    assert len(rows) == 2 * 2 * 2 + 2
    assert [row["kind"] for row in rows] == ["gemm"] * 8 + ["step"] * 2
    for row in rows[:8]:
        scheme = Scheme(weights=UNQUANTIZED)
        alone = api.time_product(chips.get(row["chip"]), row["m"], row["n"], row["k"], scheme)
        assert row["time_s"] == alone.time_s
    assert rows[9]["tokens_per_s"] > rows[8]["tokens_per_s"]


def test_a_second_run_goes_on_where_the_first_was_stopped(asterope, sweep, tmp_path):
    out = tmp_path / "rows.jsonl"
    whole = asterope("simulate", "--sweep", sweep, "--jobs", 1, "--out", out, "--json").json
    lines = out.read_text().splitlines()
    assert [json.loads(line) for line in lines] == whole
    out.write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])  # killed while it wrote the fourth
    rows, timed = rerun(sweep, out)
    assert rows == whole
    assert len(timed) == len(whole) - 3
    assert sorted(out.read_text().splitlines()) == sorted(lines)


def test_rows_of_other_points_stay_and_those_of_a_changed_chip_are_timed_again(tmp_path):
    chip, out, sweep = (tmp_path / name for name in ("mine.toml", "rows.jsonl", "sweep.toml"))
    chip.write_text(chips.dumps_toml(chips.get("h100")))
    table = f"[[gemm]]\nm = {{m}}\nn = 64\nk = 64\nformat = 'bf16'\nchip = ['{chip}', 'h100']\n"
    sweep.write_text(table.format(m=8))
    first, _ = rerun(sweep, out)
    sweep.write_text(table.format(m=16))
    second, timed = rerun(sweep, out)
    assert len(timed) == 2
    assert [json.loads(line) for line in out.read_text().splitlines()] == first + second
    slower = chips.replace(chips.get("h100"), {"hbm.bandwidth_bytes_per_s": 1e9})
    chip.write_text(chips.dumps_toml(slower))
    third, timed = rerun(sweep, out)
    assert [point["chip"] for point in timed] == [str(chip)]
    assert third[0]["time_s"] > second[0]["time_s"]
    assert third[1] == second[1]
    assert len(out.read_text().splitlines()) == 4


def test_what_a_runner_could_not_reach_is_not_the_file(sweep, tmp_path):
    def lost(work, points):
        raise ConnectionError("the cluster is gone")

    with pytest.raises(ConnectionError, match="the cluster is gone"):
        api.run_sweep(api.read_sweep(sweep), lost, out=tmp_path / "rows.jsonl")


def test_a_point_that_cannot_be_timed_does_not_stop_the_others(asterope, tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text("[[gemm]]\nm = 8\nn = 64\nk = [64, 33]\nchip = 'h100'\n")
    ended = asterope("simulate", "--sweep", file, "--jobs", 1)
    assert ended.code == 1
    assert "1 of 2 points could not be timed" in ended.err
    assert "blocks of 32" in ended.err
    assert ended.out.count("operator") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[gemm]]\nm = 1\nn = 2\n", "needs k"),
        ("[[gemm]]\nm = 1\nn = 2\nk = 4\nq = 3\n", "has no field 'q'"),
        ("[[gemm]]\nm = [1, 'two']\nn = 2\nk = 4\n", "'two' is not a whole number"),
        ("[[gemm]]\nm = true\nn = 2\nk = 4\n", "True is not a whole number"),
        ("[[product]]\nm = 1\n", "[[product]] is no table of a sweep"),
        ("gemm = 3\n", "[[gemm]] is no table of a sweep"),
        ("", "has no points"),
        ("[[gemm]\n", "is not TOML"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused(asterope, tmp_path, text, words):
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    error = asterope("simulate", "--sweep", file).error
    assert words in error
    assert "sweep.toml" in error


def test_rows_are_not_written_over_another_file(asterope, sweep, tmp_path):
    out = tmp_path / "notes.txt"
    out.write_text("not rows\n")
    error = asterope("simulate", "--sweep", sweep, "--out", out).error
    assert "is no file of a sweep" in error
    assert out.read_text() == "not rows\n"


def test_a_model_and_a_sweep_are_not_given_together(asterope, sweep):
    for other in (["llama-3.1-8b"], ["--trace", "t.json"], ["--report", "page.html"]):
        assert "not for a sweep" in asterope("simulate", *other, "--sweep", sweep).error
    assert "for --sweep" in asterope("simulate", "llama-3.1-8b", "--ray").error
    assert "no model given" in asterope("simulate").error


@pytest.mark.slow
def test_processes_and_ray_give_the_same_rows(asterope, sweep):
    pytest.importorskip("ray")
    one, many, ray = (
        asterope("simulate", "--sweep", sweep, *how, "--json").json
        for how in (("--jobs", 1), ("--jobs", 2), ("--ray",))
    )
    assert one == many == ray


def test_the_how_to_is_a_sweep(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "sweep.md").read_text()
    file = tmp_path / "sweep.toml"
    file.write_text(page.split("```toml\n")[1].split("```")[0])
    assert len(api.read_sweep(file)) == 4 * 2 * 2 + 2 * 3 * 3 * 2
