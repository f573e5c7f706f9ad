"""`asterope chips power`: watts at the peaks by component, beside the maker's efficiency."""

from __future__ import annotations

import pytest


def test_maia200_draws_its_tdp_at_the_headline_peaks_and_is_as_efficient_as_claimed(asterope):
    ended = asterope("chips", "power", "--json")
    assert (ended.code, ended.json["profile"]) == (0, "headline")
    peaks = {peak["format"]: peak for peak in ended.json["peaks"]}
    for peak in peaks.values():
        assert sum(peak["parts_w"].values()) == pytest.approx(peak["power_w"])
        assert peak["power_w"] <= ended.json["tdp_w"]
    for name, claimed in (("fp4", 13.3e12), ("fp8", 6.7e12)):
        assert peaks[name]["claimed_flop_per_j"] == claimed
        assert peaks[name]["flop_per_j"] == pytest.approx(claimed, rel=0.02)
        assert peaks[name]["power_w"] == pytest.approx(750, rel=0.01)


def test_the_table_has_a_row_a_format(asterope):
    ended = asterope("chips", "power", "h100")
    rows = [line.split()[0] for line in ended.out.splitlines()[2:]]
    assert rows == ["fp8", "bf16", "int8"]
    assert "700.0" in ended.out


def test_a_product_under_a_low_limit_says_its_clock(asterope, tmp_path):
    file = tmp_path / "cool.toml"
    file.write_text('base = "maia200"\n[power]\ntdp_w = 300.0\n')
    sizes = ("2048", "2048", "2048", "--chip", str(file))
    ended = asterope("simulate", "gemm", *sizes, "--explain")
    assert "the TDP lowers the clock to" in ended.out
    (row,) = asterope("simulate", "gemm", *sizes, "--json").json
    assert row["clock_hz"] < 2e9
    assert 0 < row["throttled_s"] < row["time_s"]
    assert row["energy_j"] / row["time_s"] <= 300
    assert sum(row["energy_parts_j"].values()) == pytest.approx(row["energy_j"])
    assert sum(row["parts"].values()) == pytest.approx(row["time_s"])


def test_a_model_step_under_a_low_limit_says_so(asterope, tmp_path):
    file = tmp_path / "cool.toml"
    file.write_text('base = "maia200"\n[power]\ntdp_w = 160.0\n')
    page = tmp_path / "page.html"
    options = (
        "--phase",
        "decode",
        "--chip",
        str(file),
        "--fidelity",
        "tile",
        "--json",
        "--report",
        str(page),
    )
    ended = asterope("simulate", "llama-3.1-8b", "--batch", "8", "--context", "256", *options)
    (step,) = ended.json["steps"]
    assert step["energy_j"] / step["time_s"] <= 160
    assert sum(step["energy_parts_j"].values()) == pytest.approx(step["energy_j"])
    assert sum(group["energy_j"] for group in step["groups"]) == pytest.approx(step["energy_j"])
    assert step["throttled_s"] > 0
    assert any("more than its TDP in a decode step" in note for note in ended.json["notes"])
    assert 'id="decode-waterfall-1"' in page.read_text()
