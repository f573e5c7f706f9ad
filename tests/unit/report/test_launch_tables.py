"""A traced line: equal work is one row, and the source is shown as written."""

from __future__ import annotations

import io

from rich.console import Console

from asterope.report.data import LineShare, TracedLaunch
from asterope.report.launches import launch_tables


def test_a_line_has_one_row_a_work_and_its_source_as_written(tmp_path):
    source = tmp_path / "kernel.py"
    source.write_text("acc = tl.dot(a.load([m, k]), b) * c * d\n")
    lines = [
        LineShare(loc=f"{source}:1:{column}", engine="vector", work="fmul", time_s=1e-6)
        for column in (30, 34)
    ]
    launch = TracedLaunch(
        kernel="f", grid=(1, 1, 1), time_s=2e-6, roofline_s=1e-6, hbm_bytes=0, flop=0,
        bound_by="vector", energy_j=None, occupancy={}, lines=tuple(lines),
    )  # fmt: skip
    out = io.StringIO()
    console = Console(file=out, width=200)
    for table in launch_tables([launch], "chip"):
        console.print(table)
    (row,) = [line for line in out.getvalue().splitlines() if "kernel.py:1" in line]
    assert row.split()[:2] == ["100.0", "%"]
    assert "a.load([m, k])" in row
