"""When one load or one store is done, from the chip's figures alone.

On `PLAIN` a cycle is 1000 ps and HBM moves a byte in 1 ps. The first instruction is issued after
10 cycles. A load takes what the slowest of HBM, NoC, CSRAM and the tile's port needs, then 500
cycles of HBM latency and 20 of DMA latency.
"""

from __future__ import annotations

import numpy as np
import pytest

from asterope.ir import Type
from ir_builder import Writer
from sim_programs import PLAIN, plain, timed

ISSUE, HBM_LATENCY, DMA_LATENCY = 10_000, 500_000, 20_000
LATENCY = HBM_LATENCY + DMA_LATENCY
FAST = 1 << 20  # bytes per cycle that never matter


def one_load(shape=(16, 64), elem="fp32", *, same_array=False, on=None):
    """Load a block, store its double; in place it may not be shared between tiles."""
    w = Writer(x=f"ptr<{elem}>", y=f"ptr<{elem}>")
    mask = None
    if on is not None:
        columns = w.iota(shape[1])
        mask = w.along(w.compare("slt", columns, w.const(columns.type, on)), 1, shape)
    block = w.load("x", shape, mask=mask)
    w.store("x" if same_array else "y", w("fadd", block, block), mask=mask)
    return w.done()


def one_store(shape=(16, 64), elem="fp32", *, on=None):
    """Store a constant."""
    w = Writer(y=f"ptr<{elem}>")
    mask = None
    if on is not None:
        columns = w.iota(shape[1])
        mask = w.along(w.compare("slt", columns, w.const(columns.type, on)), 1, shape)
    w.store("y", w.const(Type(elem, shape), 1.0), mask=mask)
    return w.done()


def event(result, engine):
    (found,) = [e for e in result.events if e.engine == engine]
    return found


@pytest.mark.parametrize(
    ("slowest", "figures", "transfer_ps"),
    [
        ("tile port", {}, 16_000),  # 4096 B at 256 B a cycle
        ("hbm", {"tile__dma__ingest_bytes_per_cycle": FAST}, 4096),
        (
            "noc",
            {"tile__dma__ingest_bytes_per_cycle": FAST, "noc__global_bytes_per_cycle": 512},
            8000,
        ),
        (
            "csram",
            {"tile__dma__ingest_bytes_per_cycle": FAST, "cluster__csram_bytes_per_cycle": 128},
            32_000,
        ),
    ],
)
def test_a_load_takes_what_its_slowest_resource_takes_plus_latency(slowest, figures, transfer_ps):
    result = timed(one_load(), plain(**figures))
    load = event(result, "load")
    assert load.start_ps == ISSUE
    assert load.end_ps == ISSUE + transfer_ps + LATENCY
    assert result.breakdown_ps[slowest] >= transfer_ps


def test_a_block_that_is_also_written_is_not_staged_in_csram():
    chip = plain(tile__dma__ingest_bytes_per_cycle=FAST, cluster__csram_bytes_per_cycle=128)
    result = timed(one_load(same_array=True), chip)
    assert event(result, "load").end_ps == ISSUE + 4096 + LATENCY
    assert result.bytes["csram"] == 0


@pytest.mark.parametrize(("elem", "size"), [("fp32", 4), ("bf16", 2), ("e4m3", 1), ("fp64", 8)])
def test_bytes_follow_the_element(elem, size):
    result = timed(one_load(elem=elem), PLAIN)
    load = event(result, "load")
    assert load.bytes == 1024 * size
    assert load.end_ps == ISSUE + np.ceil(1024 * size / 0.256) + LATENCY
    assert result.bytes["hbm_read"] == result.bytes["hbm_written"] == 1024 * size


def test_only_what_the_mask_leaves_on_is_moved():
    result = timed(one_load(on=10), PLAIN)
    assert event(result, "load").bytes == 16 * 10 * 4
    assert event(result, "load").end_ps == ISSUE + 16 * 10 * 4 / 0.256 + LATENCY
    assert event(result, "store").bytes == 16 * 10 * 4


def test_a_load_of_nothing_takes_the_dma_latency_alone():
    result = timed(one_load(on=0), PLAIN)
    load = event(result, "load")
    assert (load.start_ps, load.end_ps, load.bytes) == (ISSUE, ISSUE + DMA_LATENCY, 0)
    assert result.bytes["hbm"] == result.bytes["noc"] == result.bytes["csram"] == 0


def test_a_store_of_nothing_takes_the_dma_latency_alone():
    store = event(timed(one_store(on=0), PLAIN), "store")
    assert (store.start_ps, store.end_ps, store.bytes) == (ISSUE, ISSUE + DMA_LATENCY, 0)


@pytest.mark.parametrize(
    ("slowest", "figures", "transfer_ps"),
    [
        ("tile port", {}, 32_000),  # 4096 B at 128 B a cycle
        ("hbm", {"tile__dma__egress_bytes_per_cycle": FAST}, 4096),
        (
            "noc",
            {"tile__dma__egress_bytes_per_cycle": FAST, "noc__global_bytes_per_cycle": 64},
            64_000,
        ),
    ],
)
def test_a_store_takes_what_its_slowest_resource_takes_plus_latency(slowest, figures, transfer_ps):
    result = timed(one_store(), plain(**figures))
    store = event(result, "store")
    assert (store.start_ps, store.end_ps) == (ISSUE, ISSUE + transfer_ps + DMA_LATENCY)
    expected = {"issue": ISSUE, slowest: transfer_ps, "latency": DMA_LATENCY}
    assert result.breakdown_ps == expected
    assert result.time_ps == sum(expected.values())


def test_launch_overhead_comes_on_top():
    result = timed(one_store(), plain(launch_overhead_s=2e-6))
    assert result.breakdown_ps["launch"] == 2_000_000
    assert result.time_ps == ISSUE + 32_000 + DMA_LATENCY + 2_000_000


def test_a_launch_of_no_programs_takes_its_overhead_alone():
    result = timed(one_store(), plain(launch_overhead_s=2e-6), grid=0)
    assert (result.time_ps, result.bound_by, result.instructions) == (2_000_000, "launch", 0)
    assert timed(one_store(), PLAIN, grid=0).time_ps == 0


def test_two_tiles_share_hbm_first_come_first_served():
    chip = plain(tile__dma__egress_bytes_per_cycle=FAST, noc__global_bytes_per_cycle=FAST)
    stores = sorted(e.end_ps for e in timed(one_store(), chip, grid=3).events)
    assert stores == [ISSUE + n * 4096 + DMA_LATENCY for n in (1, 2, 3)]


def gather(shape=(16, 64), elem="fp32", on=None, index_from=None):
    """Load through addresses that are no sum of a row's and a column's."""
    w = Writer(x=f"ptr<{elem}>", y=f"ptr<{elem}>")
    rows, columns = (w.along(w.iota(n), d, shape) for d, n in enumerate(shape))
    odd = w("mul", w("xor", rows, columns), w("add", columns, rows))
    pointers = w("addptr", w.broadcast(w["x"], shape), odd)
    mask = None
    if on is not None:
        mask = w.compare("slt", w("xor", columns, rows), w.const(columns.type, on))
    w.store("y", w.load_at(pointers, mask=mask))
    return w.done()


def test_each_gathered_element_costs_a_granule():
    result = timed(gather(), PLAIN)
    load = event(result, "load")
    granules = 1024 * 64
    assert load.end_ps == ISSUE + granules / 0.256 + LATENCY
    assert result.bytes["hbm_read"] == granules
    assert result.asked_bytes == 2 * 4096
    assert result.bytes["csram"] == 0


def test_an_element_wider_than_a_granule_costs_itself():
    result = timed(gather(elem="fp64"), plain(tile__dma__gather_granule_bytes=4))
    assert result.bytes["hbm_read"] == 1024 * 8


def test_a_masked_gather_moves_the_elements_that_are_on():
    expected = sum((r ^ c) < 5 for r in range(16) for c in range(64)) * 64
    assert timed(gather(on=5), PLAIN).bytes["hbm_read"] == expected


def test_elements_fetched_through_an_index_vector_are_a_gather():
    w = Writer(x="ptr<fp32>", index="ptr<i32>", y="ptr<fp32>")
    at = w.load("index", (64,))
    w.store("y", w.load_at(w("addptr", w.broadcast(w["x"], (64,)), at)))
    index = np.arange(64, dtype=np.int32)[::-1] * 1000
    x, y = np.zeros(64_000, np.float32), np.zeros(64, np.float32)
    result = timed(w.done(), PLAIN, memory=[x, index, y])
    assert result.bytes["hbm_read"] == 64 * 4 + 64 * 64  # the indices, then a granule each


def rows_by_index(columns, column_stride=1, *, on=None, from_scalar=False):
    """Load rows of x whose numbers are in memory, as an embedding does."""
    w = Writer(x="ptr<fp32>", index="ptr<i32>", y="ptr<fp32>")
    shape = (8, columns)
    if from_scalar:
        rows = w("add", w.iota(8), w.broadcast(w.load("index"), (8,)))
    else:
        rows = w.load("index", (8,))
    rows = w("mul", rows, w.const(rows.type, 1024))
    steps = w.iota(columns)
    if column_stride != 1:
        steps = w("mul", steps, w.const(steps.type, column_stride))
    offsets = w("add", w.along(rows, 0, shape), w.along(steps, 1, shape))
    mask = None
    if on is not None:
        mask = w.along(w.compare("slt", w.iota(columns), w.const(steps.type, on)), 1, shape)
    block = w.load_at(w("addptr", w.broadcast(w["x"], shape), offsets), mask=mask)
    w.store("y", block)
    index = np.arange(8, dtype=np.int32)[::-1].copy()
    return timed(w.done(), PLAIN, memory=[np.zeros(1, np.float32), index, np.zeros(1, np.float32)])


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        ({"columns": 32}, 8 * 32 * 4),  # a row is one piece
        ({"columns": 8}, 8 * 64),  # of less than a granule
        ({"columns": 32, "on": 20}, 8 * 20 * 4),
        ({"columns": 32, "on": 3}, 8 * 64),
        ({"columns": 32, "column_stride": 2}, 8 * 32 * 64),  # nothing lies together
    ],
)
def test_a_row_fetched_by_its_number_in_memory_is_one_piece(options, moved):
    assert rows_by_index(**options).bytes["hbm_read"] == 8 * 4 + moved


def test_a_block_whose_first_row_is_in_memory_is_no_gather():
    assert rows_by_index(columns=8, from_scalar=True).bytes["hbm_read"] == 4 + 8 * 8 * 4


@pytest.mark.parametrize("shape", [(1, 64), (64, 1), (1, 1)])
def test_a_block_with_one_row_or_column_is_no_gather(shape):
    result = timed(one_load(shape), PLAIN)
    count = shape[0] * shape[1] * 4
    assert result.bytes["hbm_read"] == result.bytes["hbm_written"] == count
