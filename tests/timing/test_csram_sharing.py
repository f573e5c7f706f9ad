"""Tiles pass on through CSRAM what one of them has read, and only what is the same.

On `PLAIN` a cycle is 1000 ps, HBM moves a byte in 1 ps, CSRAM has a latency of 100 cycles, a hop of
the mesh takes 3.
"""

from __future__ import annotations

import pytest

from asterope.ir import Type
from ir_builder import Writer
from sim_programs import PLAIN, Access, Program, plain, simulated, timed

ISSUE, HBM_LATENCY, DMA_LATENCY, CSRAM_LATENCY, HOP = 10_000, 500_000, 20_000, 100_000, 3_000
BLOCK = 16 * 64 * 4
FAST = 1 << 20


def loads(result):
    return sorted((e for e in result.events if e.engine == "load"), key=lambda e: e.end_ps)


def read_by_all():
    """Every program loads the same block."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    block = w.load("x", (16, 64))
    pid = w("program_id", to=Type("i32"), axis=0)
    at = w("addptr", w["y"], w("mul", pid, w.const("i32", 1024)))
    w.store_at(w.pointers(at, (16, 64)), w("fadd", block, block))
    return w.done()


def kernel_of(program_body):
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    program_body(w)
    return w.done()


def test_a_second_tile_of_the_cluster_takes_the_block_from_csram():
    result = timed(read_by_all(), plain(tile__dma__ingest_bytes_per_cycle=FAST), grid=2)
    first, second = loads(result)
    assert {first.tile, second.tile} == {0, 1}
    there = ISSUE + BLOCK + HBM_LATENCY + DMA_LATENCY
    assert first.end_ps == there
    assert second.end_ps == there + CSRAM_LATENCY + DMA_LATENCY
    assert result.bytes["hbm_read"] == BLOCK
    assert result.bytes["csram"] == 2 * BLOCK  # written once, read once
    assert result.bytes["tsram_dma_written"] == 2 * BLOCK


def test_tiles_that_ask_before_a_block_arrives_receive_it_together():
    chip = plain(tile__dma__ingest_bytes_per_cycle=FAST, noc__multicast=True)
    result = timed(read_by_all(), chip, grid=3)
    assert {e.end_ps for e in loads(result)} == {ISSUE + BLOCK + HBM_LATENCY + DMA_LATENCY}
    assert result.bytes["hbm_read"] == BLOCK
    assert result.bytes["csram"] == BLOCK  # written once; nobody has to read it
    assert result.bytes["tsram_dma_written"] == 3 * BLOCK


def test_another_cluster_receives_what_is_on_its_way_a_hop_later():
    chip = plain(tile__dma__ingest_bytes_per_cycle=FAST, noc__multicast=True, tiles_per_cluster=1)
    result = timed(read_by_all(), chip, grid=3)
    there = ISSUE + BLOCK + HBM_LATENCY + DMA_LATENCY
    ends = {e.tile: e.end_ps for e in loads(result)}
    assert (ends[0], ends[1]) == (there, there + HOP)
    assert result.bytes["csram"] == 3 * BLOCK  # each cluster keeps it


def test_a_block_that_has_begun_to_arrive_is_read_from_csram():
    """Who asks less than the DMA's 20 cycles before does not receive it with the others."""
    late = (HBM_LATENCY + 4096) // 1000 + 1

    def ask(cycles):
        chip = plain(noc__multicast=True, tile__control__issue_cycles=cycles)
        return loads(timed(three_loads((0, 0)), chip))

    assert ask(late - 1)[1].end_ps <= ask(late - 1)[0].end_ps + 16_000
    assert ask(late + 1)[1].end_ps > ask(late + 1)[0].end_ps + CSRAM_LATENCY


def test_another_cluster_takes_the_block_over_the_noc():
    chip = plain(tile__dma__ingest_bytes_per_cycle=FAST, tiles_per_cluster=1)
    result = timed(read_by_all(), chip, grid=3)
    there = ISSUE + BLOCK + HBM_LATENCY + DMA_LATENCY
    ends = {e.tile: e.end_ps for e in loads(result)}
    assert ends[0] == there
    assert ends[1] == there + CSRAM_LATENCY + DMA_LATENCY + HOP
    assert result.bytes["hbm_read"] == BLOCK
    assert result.bytes["csram"] == BLOCK + 2 * 2 * BLOCK  # a write; then reads and writes


@pytest.mark.parametrize(
    ("share", "out_ps"),
    [(1.0, 64_000), (0.5, 2 * 64_000), (0.25, 4 * 64_000), (1e-6, 1_014_000 + 64_000)],
)
def test_traffic_between_srams_has_its_share_of_a_port_that_traffic_with_hbm_waits_at(
    share, out_ps
):
    """Cluster 1 takes a block from cluster 0, whose port a store of 1,024 cycles came to first."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", z="ptr<fp32>")
    w.store("y", w.const(Type("fp32", (256, 64)), 0.0))
    w.store("z", w.load("x", (16, 64)))
    chip = plain(
        clusters=2, tiles_per_cluster=1, noc__global_bytes_per_cycle=64, noc__sram_share=share,
        hbm__latency_cycles=0, hbm__bandwidth_bytes_per_s=1e13,
        tile__dma__egress_bytes_per_cycle=FAST,
    )  # fmt: skip
    result = timed(w.done(), chip, grid=2)
    first, second = loads(result)
    asked = 2 * ISSUE
    assert first.end_ps == asked + 64_000 + DMA_LATENCY
    out = max(asked + out_ps, first.end_ps)
    assert second.end_ps == out + CSRAM_LATENCY + HOP + DMA_LATENCY
    # What was displaced is still to be sent: two stores and the block.
    assert result.time_ps >= ISSUE + 1_024_000 + 2 * 64_000


def test_a_block_that_is_there_already_costs_the_csram_latency():
    first, second = loads(timed(three_loads((0, 0)), plain(tile__dma__channels=1)))
    port = BLOCK / 0.256
    assert first.end_ps == ISSUE + port + HBM_LATENCY + DMA_LATENCY
    assert second.start_ps == first.end_ps
    assert second.end_ps == second.start_ps + port + CSRAM_LATENCY + DMA_LATENCY


def three_loads(order):
    """Load blocks by number, one after the other, and add them up."""

    def body(w):
        total = None
        for i in order:
            block = w.load("x", (16, 64), start=1024 * i)
            total = block if total is None else w("fadd", total, block)
        w.store("y", total)

    return kernel_of(body)


@pytest.mark.parametrize(
    ("room", "order", "read"),
    [
        (2 * BLOCK, (0, 1, 0), 2),
        (BLOCK, (0, 1, 0), 3),  # 1 pushes 0 out
        (2 * BLOCK, (0, 1, 2, 0), 4),  # the oldest goes first
        (2 * BLOCK, (0, 1, 2, 1), 3),
        (3 * BLOCK, (0, 1, 2, 0, 1, 2), 3),
        (BLOCK - 1, (0, 0, 0), 3),  # it never fits
        (BLOCK, (0, 0, 0), 1),
    ],
)
def test_the_oldest_block_makes_room_for_a_new_one(room, order, read):
    chip = plain(cluster__csram_bytes=room, tile__dma__channels=1)
    result = timed(three_loads(order), chip)
    assert result.bytes["hbm_read"] == read * BLOCK
    assert result.bytes["tsram_dma_written"] == len(order) * BLOCK


def test_enough_csram_reads_everything_once():
    program = Program(loads=(Access("x0", 0, 0, 256, 16),))
    for grid in (1, 9, 36, 100):
        result = simulated(program, PLAIN, grid, 10)
        assert result.bytes["hbm_read"] == 10 * 256 * 4


def test_more_blocks_than_the_table_begins_with_are_all_remembered():
    program = Program(shape=(2, 16), loads=(Access("x0", 0, 32, 32 * 70, 16),))
    result = simulated(program, PLAIN, 70, 150, max_events=0)
    assert result.bytes["hbm_read"] == 150 * 70 * 32 * 4
    again = simulated(program, plain(clusters=1), 70, 150, max_events=0)
    assert again.bytes["hbm_read"] == 150 * 70 * 32 * 4


def test_a_block_that_the_kernel_writes_is_read_anew_by_every_tile():
    w = Writer(x="ptr<fp32>")
    block = w.load("x", (16, 64))
    w.store("x", w("fadd", block, block))
    result = timed(w.done(), PLAIN, grid=5)
    assert result.bytes["hbm_read"] == 5 * BLOCK
    assert result.bytes["csram"] == 0


# -- what is not the same -------------------------------------------------------------------------
def test_two_halves_of_a_block_under_opposite_masks_are_two_blocks():
    def body(w):
        columns = w.iota(64)
        half = w.const(columns.type, 32)
        left, right = (w.along(w.compare(p, columns, half), 1, (16, 64)) for p in ("slt", "sge"))
        blocks = [w.load("x", (16, 64), mask=mask) for mask in (left, right)]
        w.store("y", w("fadd", *blocks))

    result = timed(kernel_of(body), PLAIN)
    assert result.bytes["tsram_dma_written"] == BLOCK
    assert result.bytes["hbm_read"] == BLOCK


def test_blocks_whose_offsets_add_up_to_the_same_are_two_blocks():
    """Both 3 4 5 6 and 0 3 6 9 add up to 18."""

    def body(w):
        base = w.broadcast(w["x"], (4,))
        third = w("mul", w.iota(4), w.const(Type("i32", (4,)), 3))
        blocks = [w.load_at(w("addptr", base, offsets)) for offsets in (w.iota(4, start=3), third)]
        w.store("y", w("fadd", *blocks))

    result = timed(kernel_of(body), PLAIN)
    assert result.bytes["hbm_read"] == 2 * 4 * 4


def test_rows_read_in_another_order_are_another_block():
    """Offsets along rows and columns, exchanged, add up to the same in each dimension."""

    def body(w):
        blocks = [w.load("x", (16, 16), strides=s) for s in ((16, 1), (1, 16))]
        w.store("y", w("fadd", *blocks))

    result = timed(kernel_of(body), PLAIN)
    assert result.bytes["hbm_read"] == 2 * 16 * 16 * 4


def test_blocks_of_other_arrays_and_sizes_are_other_blocks():
    w = Writer(x="ptr<fp32>", z="ptr<fp32>", y="ptr<fp32>")
    a, b, c = w.load("x", (16,)), w.load("z", (16,)), w.load("x", (32,))
    w.store("y", w("fadd", a, b))
    w.store("y", c, start=16)
    assert timed(w.done(), PLAIN).bytes["hbm_read"] == (16 + 16 + 32) * 4


def wrapped(w, columns, start, modulus):
    """Offsets that are not evenly spaced: (start + 0, 1, ...) % modulus."""
    return w("rems", w.iota(columns, start=start), w.const(Type("i32", (columns,)), modulus))


@pytest.mark.parametrize(("start", "distinct"), [(0, 1), (1, 2), (5, 2), (8, 1)])
def test_wrapped_offsets_are_another_block_unless_they_are_the_same(start, distinct):
    """All of them are 0 to 7 in some order, and add up to 28."""

    def body(w):
        base = w.broadcast(w["x"], (8,))
        blocks = [w.load_at(w("addptr", base, wrapped(w, 8, s, 8))) for s in (0, start)]
        w.store("y", w("fadd", *blocks))

    assert timed(kernel_of(body), PLAIN).bytes["hbm_read"] == distinct * 8 * 4


@pytest.mark.parametrize("even", [True, False], ids=["even", "wrapped"])
def test_other_columns_under_masks_of_one_size_are_other_blocks(even):
    """Columns 1 and 4 against 2 and 3: as many, with the same sum."""

    def body(w):
        columns = w.iota(8) if even else wrapped(w, 8, 0, 100)
        blocks = []
        for chosen in ((1, 4), (2, 3), (1, 4)):
            at = [w.compare("eq", w.iota(8), w.const(Type("i32", (8,)), c)) for c in chosen]
            pointers = w("addptr", w.broadcast(w["x"], (8,)), columns)
            blocks.append(w.load_at(pointers, mask=w("or", *at)))
        w.store("y", w("fadd", w("fadd", blocks[0], blocks[1]), blocks[2]))

    chip = plain(tile__dma__channels=1)
    assert timed(kernel_of(body), chip).bytes["hbm_read"] == 2 * 2 * 4


def test_shapes_with_the_same_addresses_in_all_are_told_apart_by_their_step():
    def body(w):
        for i, strides in enumerate(((16, 1), (17, 1), (16, 2), (16, 1))):
            w.store("y", w.load("x", (4, 16), strides=strides), start=64 * i)

    assert timed(kernel_of(body), PLAIN).bytes["hbm_read"] == 3 * 64 * 4


def test_blocks_of_one_size_and_step_are_told_apart_by_their_shape():
    def body(w):
        for i, shape in enumerate(((4, 16), (8, 8), (16, 4), (8, 8))):
            w.store("y", w.load("x", shape, strides=(32, 1)), start=64 * i)

    assert timed(kernel_of(body), plain(tile__dma__channels=1)).bytes["hbm_read"] == 3 * 64 * 4
