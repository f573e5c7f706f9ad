"""What the pattern of accesses to HBM costs, from the chip's figures alone.

On `PLAIN` HBM moves a byte in 1 ps and its accesses cost nothing else; each test turns one cost on.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from asterope.ir import Type
from ir_builder import Writer
from sim_programs import PLAIN, plain, timed

FAST = 1 << 20  # bytes per cycle that never matter
WIDE = {
    "tile__dma__ingest_bytes_per_cycle": FAST,
    "tile__dma__egress_bytes_per_cycle": FAST,
    "noc__global_bytes_per_cycle": FAST,
    "cluster__csram_bytes_per_cycle": FAST,
}
ROWS = {
    "hbm__access__channels": 4,
    "hbm__access__interleave_bytes": 256,
    "hbm__access__page_bytes": 1024,
    "hbm__access__activate_s": 1e-9,
}


def one_load(shape, elem="fp32"):
    w = Writer(x=f"ptr<{elem}>", y=f"ptr<{elem}>")
    w.store("y", w.load("x", shape))
    return w.done()


def load_ps(kernel, chip):
    """How long HBM was at a load: what is left without the fixed latencies."""
    (event,) = [e for e in timed(kernel, chip).events if e.engine == "load"]
    return event.end_ps - event.start_ps - 520_000


@pytest.mark.parametrize(
    ("columns", "rows_opened"),
    [
        (64, 1),  # 256 B lie on one channel
        (128, 2),
        (256, 4),  # one piece on each channel
        (1024, 4),  # a page on each channel: the pieces share the opened rows
        (2048, 8),
    ],
)
def test_a_run_opens_a_row_on_each_channel_and_each_page(columns, rows_opened):
    """Four channels lose 1 ns for each row they open."""
    kernel = one_load((16, columns))
    chip = plain(**WIDE, **ROWS)
    assert load_ps(kernel, chip) == 16 * columns * 4 + 16 * rows_opened * 1000 / 4


def test_short_runs_cost_a_granule_each():
    chip = plain(**WIDE, **{**ROWS, "hbm__access__activate_s": 0.0})
    assert load_ps(one_load((16, 64), "e4m3"), chip) == 16 * 64
    assert load_ps(one_load((16, 16), "e4m3"), chip) == 16 * 64


@pytest.mark.parametrize(
    ("modulus", "run"), [(None, 64), (4096, 64), (16, 16)], ids=["plain", "wide", "narrow"]
)
def test_wrapped_offsets_lie_together_up_to_where_they_wrap(modulus, run):
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    columns = w.iota(64)
    if modulus is not None:
        columns = w("rems", columns, w.const(Type("i32", (64,)), modulus))
    w.store("y", w.load_at(w("addptr", w.broadcast(w["x"], (64,)), columns)))
    chip = plain(**WIDE, **ROWS, tile__dma__gather_granule_bytes=1)
    assert load_ps(w.done(), chip) == 64 * 4 + 64 // run * 1000 / 4


def test_a_gathered_element_opens_a_row():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    rows, columns = (w.along(w.iota(n), d, (16, 64)) for d, n in enumerate((16, 64)))
    odd = w("mul", w("xor", rows, columns), w("add", columns, rows))
    w.store("y", w.load_at(w("addptr", w.broadcast(w["x"], (16, 64)), odd)))
    chip = plain(**WIDE, **ROWS)
    assert load_ps(w.done(), chip) == 1024 * (64 + 1000 / 4)


def test_reads_under_way_over_their_latency_limit_reads_and_not_writes():
    """Half a microsecond of latency: 50 kB under way are a byte in 10 ps."""
    chip = plain(**WIDE, hbm__access__reads_in_flight_bytes=50_000)
    result = timed(one_load((16, 64)), chip)
    load, store = result.events
    assert load.end_ps - load.start_ps == 10 * 4096 + 520_000
    assert store.end_ps - store.start_ps == 4096 + 20_000
    assert chip.hbm_effective_bytes_per_s == 1e11


TURNS = {
    "hbm__access__channels": 1,
    "hbm__access__write_batch_bytes": 1024,
    "hbm__access__turnaround_s": 1e-9,
}


def test_reads_and_writes_that_take_turns_pay_for_a_batch_once():
    """A load of 4,096 B, then a store: one batch of 1,024 B waits for its turn."""
    chip = plain(**WIDE, **TURNS)
    load, store = timed(one_load((16, 64)), chip).events
    assert load.end_ps - load.start_ps == 4096 + 520_000
    assert store.end_ps - store.start_ps == 4096 + 1000 + 20_000


def test_writes_alone_do_not_turn():
    w = Writer(y="ptr<fp32>")
    for i in range(3):
        w.store("y", w.const(Type("fp32", (16, 64)), 1.0), start=1024 * i)
    kernel = w.done()
    assert len({timed(kernel, plain(**WIDE, **figures)).time_ps for figures in ({}, TURNS)}) == 1


def test_without_described_accesses_bytes_are_all_that_counts():
    hbm = replace(PLAIN.hbm, access=None, efficiency=0.5)
    known = {k: v for k, v in PLAIN.provenance.items() if not k.startswith("hbm.access.")}
    chip = replace(plain(**WIDE), hbm=hbm, provenance=known)
    assert chip.hbm_effective_bytes_per_s == 5e11
    assert load_ps(one_load((16, 16), "e4m3"), chip) == 2 * 256
