"""What meets at the ports and banks of a tile's scratchpad.

On `PLAIN` a cycle is 1000 ps and ports are wide; an instruction is issued every 10 cycles.
"""

from __future__ import annotations

import pytest

from asterope.ir import Type
from asterope.runtime import TileKernel, optimise
from ir_builder import Writer
from sim_programs import plain, timed

CYCLE, LATENCY = 1000, 520_000  # of the DMA and HBM
BLOCK = 64 * 64 * 2


def added_product(elem="bf16"):
    """Add a product of two loaded blocks of 64 x 64 to a loaded sum."""
    w = Writer(x=f"ptr<{elem}>", w=f"ptr<{elem}>", s="ptr<fp32>", y="ptr<fp32>")
    total = w.load("s", (64, 64))
    blocks = [w.load(name, (64, 64)) for name in "xw"]
    w.store("y", w("dot", *blocks, total, to=total.type, order="pairs"))
    return w.done()


def took(result, engine):
    (found,) = (e for e in result.events if e.engine == engine)
    return found.end_ps - found.start_ps


@pytest.mark.parametrize(
    ("figures", "cycles"),
    [
        # 2 x 2 blocks of 32 x 32, 8 deep: 32 cycles, in each of them 1024 B of operands.
        ({}, 32),
        ({"tile__tsram__read_bytes_per_cycle": 1024}, 32 + 16),  # and the sum is read
        ({"tile__tsram__read_bytes_per_cycle": 256}, 128 + 64),
        ({"tile__tsram__write_bytes_per_cycle": 256}, 64),  # and written
        ({"tile__tsram__banks": 8}, 64 + 32 + 32),  # banks of 64 B serve both
    ],
)
def test_a_product_takes_what_its_ports_and_banks_need(figures, cycles):
    result = timed(added_product(), plain(**figures))
    assert took(result, "tensor") == cycles * CYCLE
    assert result.breakdown_ps.get("tsram", 0) == max(0, cycles - 32) * CYCLE


def test_a_sum_that_begins_with_zeros_is_not_read():
    w = Writer(x="ptr<bf16>", y="ptr<fp32>")
    block, zeros = w.load("x", (64, 64)), w.const(Type("fp32", (64, 64)), 0.0)
    w.store("y", w("dot", block, block, zeros, to=zeros.type, order="pairs"))
    table = TileKernel(optimise(w.done())).time_program.instructions
    assert [(i.bytes_read, i.bytes_written) for i in table] == [(0, 0), (0, 2 * BLOCK), (0, 0)]


def test_vector_work_reads_what_others_made_and_writes_what_others_use():
    """Views, constants and what one instruction makes for itself do not count."""
    w = Writer(x="ptr<bf16>", y="ptr<bf16>", z="ptr<fp32>")
    block = w.load("x", (64, 64))
    row = w.reduce(block, 1, "fmax")
    shifted = w("fsub", block, w.along(row, 0, (64, 64)))
    w.store("y", w("exp", shifted))
    (vector,) = (
        i for i in TileKernel(optimise(w.done())).time_program.instructions if i.bytes_written
    )
    assert (vector.bytes_read, vector.bytes_written) == (BLOCK, BLOCK)


def test_a_transfer_is_no_faster_than_its_port():
    figures = {"tile__tsram__read_bytes_per_cycle": 16, "tile__tsram__write_bytes_per_cycle": 32}
    result = timed(added_product(), plain(**figures, tile__dma__channels=1))
    loads = [e for e in result.events if e.engine == "load"]
    assert [e.end_ps - e.start_ps - LATENCY for e in loads] == [
        512 * CYCLE,
        256 * CYCLE,
        256 * CYCLE,
    ]
    assert took(result, "store") == (1024 + 20) * CYCLE


def copied(columns):
    """Copy 32 rows of so many of 64 columns, whose bytes are 4 each."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    x, y = (w.pointers(w[name], (32, columns), (64, 1)) for name in "xy")
    w.store_at(y, w.load_at(x))
    return w.done()


@pytest.mark.parametrize(("columns", "lines"), [(64, 4), (16, 1), (8, 1), (1, 1)])
def test_a_run_shorter_than_a_line_takes_a_whole_line_of_a_bank(columns, lines):
    result = timed(copied(columns), plain(tile__tsram__banks=1, tile__dma__gather_granule_bytes=1))
    for engine, latency in (("load", LATENCY), ("store", 20_000)):
        assert took(result, engine) == 32 * lines * CYCLE + latency
