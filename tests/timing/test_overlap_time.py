"""What overlaps and what waits: buffers, DMA channels, queues, semaphores.

On `PLAIN` a cycle is 1000 ps and the control processor issues an instruction every 10 cycles.
"""

from __future__ import annotations

import pytest

from asterope.ir import Type
from asterope.runtime import TileKernel, optimise
from ir_builder import Writer
from sim_programs import PLAIN, Access, Program, plain, replay, simulated, streams_of, timed

ISSUE = 10_000


def of(result, engine):
    return sorted((e for e in result.events if e.engine == engine), key=lambda e: e.number)


def rounds(stages, work=("exp",) * 6, **options):
    """Load a block, work on it, and so on; the work depends on nothing but the block."""
    access = Access("x0", per_step=64 * 64, row_stride=64)
    store = Access("y", per_step=64 * 64, row_stride=64)
    return Program("fp32", (64, 64), (access,), work, (store,), num_stages=stages, **options)


# -- buffers --------------------------------------------------------------------------------------
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_a_load_waits_for_the_readers_of_its_buffer_and_no_longer(stages):
    result = simulated(rounds(stages), PLAIN, 1, 8)
    loads, vectors = of(result, "load"), of(result, "vector")
    readers = {}
    for v in vectors:
        for number in v.waits:
            readers.setdefault(number, []).append(v)
    for k, load in enumerate(loads):
        earlier = loads[k - stages] if k >= stages else None
        freed = max((r.end_ps for r in readers[earlier.number]), default=0) if earlier else 0
        issued = (load.number + 1) * ISSUE
        assert load.start_ps == max(issued, freed)


def test_more_buffers_hide_loads_until_the_vector_engine_is_the_limit():
    times = {n: simulated(rounds(n), PLAIN, 1, 12).time_ps for n in (1, 2, 3, 4)}
    assert times[1] > times[2] >= times[3] >= times[4]
    result = simulated(rounds(2), PLAIN, 1, 12)
    load, vectors = of(result, "load")[0], of(result, "vector")
    work = sum(v.end_ps - v.start_ps for v in vectors)
    load_ps = load.end_ps - load.start_ps
    if work / 12 > load_ps:  # then two buffers hide all loads but the first
        assert vectors[-1].end_ps == load.end_ps + work


def test_one_buffer_is_load_and_work_in_turns():
    result = simulated(rounds(1), PLAIN, 1, 3)
    loads = of(result, "load")
    first_reader_end = [
        max(v.end_ps for v in of(result, "vector") if load.number in v.waits) for load in loads
    ]
    assert [x.start_ps for x in loads[1:]] == first_reader_end[:-1]


def test_two_results_of_an_engine_exist_at_once():
    """A store reads its block while the next is computed; the one after that waits."""
    chip = plain(tile__dma__egress_bytes_per_cycle=4, hbm__latency_cycles=0)
    result = simulated(rounds(4, work=("fneg",)), chip, 1, 5)
    stores = [e for e in of(result, "store") if len(e.waits)]
    vectors = of(result, "vector")
    producers = [max(w for w in s.waits) for s in stores[:-1]]
    for k, number in enumerate(producers):
        vector = next(v for v in vectors if v.number == number)
        if k >= 2:
            assert vector.start_ps >= stores[k - 2].end_ps


# -- programs -------------------------------------------------------------------------------------
BLOCK = 64 * 64 * 4


def one_after_the_other(room, channels=8):
    """Run eight programs on one tile; each loads a block, works on it and stores the result."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    pid = w("program_id", to=Type("i32"), axis=0)
    start = w("mul", pid, w.const("i32", 64 * 64))
    x, y = (w.pointers(w("addptr", w[name], start), (64, 64)) for name in "xy")
    w.store_at(y, w("exp", w.load_at(x)))
    kernel = TileKernel(optimise(w.done()))
    chip = plain(
        clusters=1, tiles_per_cluster=1, tile__tsram__capacity_bytes=room,
        tile__dma__channels=channels,
    )  # fmt: skip
    result = timed(kernel, chip, grid=8)
    assert result.tsram_bytes == BLOCK
    program = kernel.time_program
    replay(result, chip, streams_of(program, (8, 1, 1), [1 << 44, 2 << 44], 1), program)
    return result


@pytest.mark.parametrize(
    ("room", "at_once"),
    [(BLOCK, 1), (2 * BLOCK - 1, 1), (2 * BLOCK, 2), (3 * BLOCK, 3), (5 * BLOCK, 5)],
)
def test_programs_of_a_tile_overlap_as_far_as_its_scratchpad_has_room(room, at_once):
    """A program's load may start when that of so many programs before has been read."""
    result = one_after_the_other(room)
    loads, vectors = of(result, "load"), of(result, "vector")
    for k, load in enumerate(loads):
        freed = vectors[k - at_once].end_ps if k >= at_once else 0
        assert load.start_ps == max((load.number + 1) * ISSUE, freed)


def test_no_more_programs_overlap_than_there_are_channels():
    result = one_after_the_other(8 * BLOCK, channels=2)
    loads, vectors = of(result, "load"), of(result, "vector")
    assert all(x.start_ps >= v.end_ps for x, v in zip(loads[2:], vectors[:-2], strict=True))


def test_more_scratchpad_hides_latency():
    times = [one_after_the_other(n * BLOCK).time_ps for n in (1, 2, 3, 4, 5)]
    assert times == sorted(times, reverse=True)
    assert times[-1] < 0.7 * times[0]


# -- channels and queues --------------------------------------------------------------------------
def many_loads(count, columns=64):
    """Load so many blocks at once, then store a constant that needs none of them."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", z="ptr<fp32>")
    blocks = [w.load("x", (16, columns), start=16 * columns * i) for i in range(count)]
    w.store("z", w.const(Type("fp32", (16, columns)), 0.0))
    total = blocks[0]
    for block in blocks[1:]:
        total = w("fadd", total, block)
    w.store("y", total)
    return w.done()


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_a_load_waits_for_a_channel(channels):
    loads = of(timed(many_loads(7), plain(tile__dma__channels=channels)), "load")
    for k, load in enumerate(loads):
        issued = (k + 1) * ISSUE
        free = loads[k - channels].end_ps if k >= channels else 0
        assert load.start_ps == max(issued, free)


def test_a_full_queue_stops_the_control_processor():
    """With one channel and room for two, the sixth instruction is issued when load 3 starts."""
    chip = plain(tile__dma__channels=1, tile__control__queue_depth=2)
    result = timed(many_loads(5), chip)
    loads, store = of(result, "load"), of(result, "store")[0]
    assert [x.start_ps for x in loads[1:]] == [x.end_ps for x in loads[:-1]]
    # Load 4 is issued when load 2 starts and leaves the queue; the store right after it.
    assert store.start_ps == loads[2].start_ps + 2 * ISSUE


def test_a_deep_queue_lets_the_control_processor_run_ahead():
    chip = plain(tile__dma__channels=1, tile__control__queue_depth=32)
    store = of(timed(many_loads(5), chip), "store")[0]
    assert store.start_ps == 6 * ISSUE


def test_issue_takes_its_cycles_for_each_instruction():
    chip = plain(tile__control__issue_cycles=400)
    starts = [e.start_ps for e in of(timed(many_loads(3), chip), "load")]
    assert starts == [400_000, 800_000, 1_200_000]
    assert timed(many_loads(3), chip).breakdown_ps["issue"] >= 400_000


def test_programs_of_a_tile_run_one_after_the_other():
    """37 programs on 36 tiles: tile 0 has two, and its control processor issues both."""
    result = timed(many_loads(1), PLAIN, grid=37)
    first = of_tile(result, 0)
    assert [e.number for e in first] == list(range(len(first)))
    assert len(first) == 2 * len(of_tile(result, 1))


def of_tile(result, tile):
    return sorted((e for e in result.events if e.tile == tile), key=lambda e: e.number)


# -- semaphores -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("pre", "post", "joins"), [(4, 4, 0), (3, 3, 2), (2, 9, 1), (9, 1, 3)])
def test_semaphores_over_a_limit_are_joined_by_instructions_that_take_their_issue(pre, post, joins):
    """Three blocks are added up and the sum is stored: four buffers, each full and then empty."""
    chip = plain(
        tile__control__max_pre_semaphores=pre, tile__control__max_post_semaphores=post,
        tile__control__issue_cycles=9000,
    )  # fmt: skip
    kernel = TileKernel(optimise(many_loads(3)))
    assert [i.semaphores for i in kernel.time_program.instructions] == [1, 1, 1, 0, 4, 1]
    (vector,) = of(timed(kernel, chip), "vector")
    assert vector.start_ps == (5 + joins) * 9_000_000


def test_a_product_of_two_loaded_blocks_has_three_semaphores_however_often_it_adds_up():
    """Both blocks are there, and the sum's place is free: its own queue keeps the sums in order."""
    w = Writer(x="ptr<bf16>", w="ptr<bf16>", y="ptr<fp32>", n="i32")

    def body(_, total):
        left, right = (w.load(name, (32, 32)) for name in "xw")
        return [w("dot", left, right, total, to=total.type, order="pairs")]

    start = w.const(Type("fp32", (32, 32)), 0.0)
    (total,) = w.for_(w.const("i32", 0), w["n"], w.const("i32", 1), [start], body)
    w.store("y", total)
    table = TileKernel(optimise(w.done())).time_program.instructions
    assert [(i.engine.value, i.semaphores) for i in table] == [
        ("load", 1), ("load", 1), ("tensor", 3), ("store", 1),
    ]  # fmt: skip


def long_wait(count):
    """Compute for long, store `count` numbers meanwhile, then store what was computed."""
    w = Writer(x="ptr<fp32>", z="ptr<fp32>", y="ptr<fp32>", n="i32")
    block = w.load("x", (256, 512))
    for name in ("exp", "sin", "cos", "exp", "sin", "cos"):
        block = w(name, block)

    def body(i):
        w.store_at(w("addptr", w["y"], i), w.const("fp32", 1.0))
        return []

    w.for_(w.const("i32", 0), w["n"], w.const("i32", 1), [], body)
    w.store("z", block)
    return w.done()


@pytest.mark.parametrize("count", [100, 253, 254, 255, 600, 2000])
def test_a_semaphore_is_waited_for_however_many_instructions_lie_between(count):
    result = timed(long_wait(count), PLAIN, args=[count])
    (vector,), last = of(result, "vector"), of(result, "store")[-1]
    assert last.label == "store z"
    assert last.start_ps >= vector.end_ps


def test_a_long_schedule_keeps_every_semaphore():
    kernel = TileKernel(optimise(long_wait(0)))
    program = kernel.time_program
    args = [1 << 44, 2 << 44, 3 << 44, 700]
    result = timed(kernel, PLAIN, args=[700])
    streams = streams_of(program, (1, 1, 1), args, PLAIN.num_tiles)
    replay(result, PLAIN, streams, program)


@pytest.mark.parametrize("count", [100, 250, 400, 1500])
def test_a_queued_instruction_keeps_what_it_waits_for(count):
    """Slow loads, a queued reader of each, and many stores before they have arrived."""
    w = Writer(x="ptr<fp32>", z="ptr<fp32>", y="ptr<fp32>", n="i32")
    blocks = [w.load("x", (256, 128), start=256 * 128 * k) for k in range(3)]
    # Branches keep the vector ops apart.
    yes = w.compare("sge", w["n"], w.const("i32", 0))
    works = [w.if_(yes, lambda b=b: [w("exp", b)], lambda b=b: [w("fneg", b)])[0] for b in blocks]

    def body(i):
        w.store_at(w("addptr", w["y"], i), w.const("fp32", 1.0))
        return []

    w.for_(w.const("i32", 0), w["n"], w.const("i32", 1), [], body)
    for k, work in enumerate(works):
        w.store("z", work, start=256 * 128 * k)
    kernel = TileKernel(optimise(w.done()))
    chip = plain(tile__dma__ingest_bytes_per_cycle=16, cluster__csram_bytes=1)
    result = timed(kernel, chip, args=[count])
    loads, vectors = of(result, "load"), of(result, "vector")
    assert all(v.start_ps >= x.end_ps for x, v in zip(loads, vectors, strict=True))
    program = kernel.time_program
    args = [1 << 44, 2 << 44, 3 << 44, count]
    replay(result, chip, streams_of(program, (1, 1, 1), args, chip.num_tiles), program)
    assert sum(result.breakdown_ps.values()) == result.time_ps


def test_a_value_that_a_branch_chooses_is_waited_for():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", z="ptr<fp32>", n="i32")
    yes = w.compare("sgt", w["n"], w.const("i32", 0))
    (block,) = w.if_(
        yes,
        lambda: [w("exp", w.load("x", (64, 64)))],
        lambda: [w("fneg", w.load("y", (64, 64)))],
    )
    w.store("z", block)
    kernel = w.done()
    for n, label in ((1, "load x"), (0, "load y")):
        result = timed(kernel, PLAIN, args=[n])
        load, vector, store = (of(result, e)[0] for e in ("load", "vector", "store"))
        assert load.label == label
        assert vector.start_ps == load.end_ps
        assert store.start_ps == vector.end_ps
        assert result.instructions == 3
