"""`asterope chips sensitivity`: which figure that is not public moves which prediction."""

from __future__ import annotations

import pytest

from asterope import chips


@pytest.fixture
def few(tmp_path):
    """Maia 200 of which all but five figures are known."""
    kept = {
        "hbm.access.reads_in_flight_bytes",
        "tile.reshaper.lanes_8bit_int",
        "hbm.efficiency",
        "launch_overhead_s",
        "tile.dma.channels",
    }
    lines = ['base = "maia200"', 'name = "few"']
    for row in chips.figures(chips.maia200()):
        is_open = str(row.confidence) in ("assumed", "calibrated")
        if is_open and row.path not in kept and isinstance(row.value, (int, float)):
            lines.append(
                f'{row.path} = {{ value = {row.value}, source = "me", confidence = "secondary" }}'
            )
    path = tmp_path / "few.toml"
    path.write_text("\n".join(lines))
    return path


def test_the_figure_that_moves_most_comes_first_and_each_says_what_it_moves(asterope, few):
    found = {one["figure"]: one for one in asterope("chips", "sensitivity", few, "--json").json}
    assert set(found) == {
        "hbm.access.reads_in_flight_bytes", "hbm.efficiency", "launch_overhead_s",
        "tile.dma.channels",
    }  # fmt: skip
    effects = [one["effect"] for one in found.values()]
    assert effects == sorted(effects, reverse=True)
    less, more = found["hbm.access.reads_in_flight_bytes"]["changes"]["gemm of 16 rows"]
    assert less > 0.5
    assert more < -0.2
    assert abs(found["hbm.access.reads_in_flight_bytes"]["changes"]["gemm bf16"][1]) < 0.05
    launch = found["launch_overhead_s"]["changes"]["elementwise"]
    assert launch[0] < 0 < launch[1]
    assert found["hbm.efficiency"]["high"] == 1  # a share cannot double


def test_a_factor_that_varies_nothing_is_refused(asterope):
    assert "1 is not more than 1" in asterope("chips", "sensitivity", "--factor", "1").error


def test_a_chip_whose_inside_is_not_public_has_no_assumptions_to_vary(asterope):
    assert "inside of h100 is not public" in asterope("chips", "sensitivity", "h100").error
