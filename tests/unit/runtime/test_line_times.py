"""The critical path by source line adds up, and names the lines that take the time."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("triton")

import torch
import triton
import triton.language as tl

from asterope import chips
from asterope.runtime import simulate


@triton.jit
def heavy(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at)
        for _ in range(50):
            x = tl.exp(x) - tl.sqrt(tl.abs(x))
        tl.store(y_ptr + at, x)


def lines_of(grid=(1,), n=1 << 14, **kwargs):
    x = torch.empty(n, device="meta")
    chip = chips.maia200()
    with simulate(chip, values=False, lines=True, **kwargs) as timeline:
        heavy[grid](x, x, n, BLOCK=1024)
    result = timeline.launches[0].result
    return result, chip


@pytest.mark.parametrize("grid", [(1,), (50,)])
def test_lines_add_up_to_the_time_without_the_launch(grid):
    result, _ = lines_of(grid)
    launch_ps = result.breakdown_ps["launch"]
    assert sum(line.time_ps for line in result.lines) == result.time_ps - launch_ps


def test_vector_time_goes_to_the_line_that_asks_for_it():
    result, _ = lines_of()
    first = result.lines[0]
    assert first.engine == "vector"
    source = Path(__file__).read_text().splitlines()[int(first.loc.split(":")[-2]) - 1]
    assert "tl.exp" in source
    vector = sum(line.time_ps for line in result.lines if line.engine == "vector")
    assert vector == pytest.approx(result.breakdown_ps["vector"], rel=0.05)


def test_without_being_asked_nothing_is_traced():
    x = torch.empty(1 << 12, device="meta")
    with simulate(chips.maia200(), values=False) as timeline:
        heavy[(1,)](x, x, 1 << 12, BLOCK=1024)
    assert timeline.launches[0].result.lines == ()
    assert timeline.launches[0].result.events == ()


@triton.jit
def itself(x):
    return x


@triton.jit
def maps_to_itself(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.map_elementwise(itself, tl.load(x_ptr + at)))


def test_vector_work_without_operations_is_a_line_too():
    x = torch.empty(64, device="meta")
    with simulate(chips.maia200(), values=False, lines=True) as timeline:
        maps_to_itself[(1,)](x, x, BLOCK=64)
    result = timeline.launches[0].result
    spent = sum(line.time_ps for line in result.lines)
    assert spent == result.time_ps - result.breakdown_ps["launch"]
