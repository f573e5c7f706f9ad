"""How long the tensor and the vector engine take, from the chip's figures alone.

On `PLAIN` a cycle is 1000 ps; the tensor unit starts up in 7 cycles, the vector engine in 5.
"""

from __future__ import annotations

import math

import pytest

from asterope import chips
from asterope.errors import ChipError
from asterope.ir import Type
from asterope.sim import engine
from ir_builder import Writer
from sim_programs import PLAIN, Access, Program, plain, simulated, timed

CYCLE, TENSOR_STARTUP, VECTOR_STARTUP = 1000, 7, 5


def duration(result, engine):
    (found,) = [e for e in result.events if e.engine == engine]
    return found.end_ps - found.start_ps


def product(m, n, k, a="bf16", b=None, acc="fp32"):
    """One dot of [m, k] by [k, n]."""
    b = b or a
    w = Writer(x=f"ptr<{a}>", w=f"ptr<{b}>", y=f"ptr<{acc}>")
    start = w.const(Type(acc, (m, n)), 0)
    total = w("dot", w.load("x", (m, k)), w.load("w", (k, n)), start, to=start.type, order="pairs")
    w.store("y", total)
    return w.done()


def scaled_product(m, n, k, a, b):
    """One dot_scaled with an E8M0 scale for 32 elements of each operand."""
    store = {"e2m1": "i8", "e4m3": "e4m3", "e5m2": "e5m2", "bf16": "bf16"}
    pack = {"e2m1": 2}
    w = Writer(x=f"ptr<{store[a]}>", w=f"ptr<{store[b]}>", s="ptr<i8>", t="ptr<i8>", y="ptr<fp32>")
    operands = [
        w.load("x", (m, k // pack.get(a, 1))), w.load("w", (k // pack.get(b, 1), n)),
        w.const(Type("fp32", (m, n)), 0.0),
    ]  # fmt: skip
    scales = {"a_scale": a != "bf16", "b_scale": True}
    if scales["a_scale"]:
        operands.append(w.load("s", (m, k // 32)))
    operands.append(w.load("t", (n, k // 32)))
    total = w("dot_scaled", *operands, to=operands[2].type, a_format=a, b_format=b, **scales)
    w.store("y", total)
    return w.done()


@pytest.mark.parametrize(
    ("m", "n", "k", "steps"),
    [
        (32, 32, 8, 1),
        (32, 32, 16, 2),
        (64, 128, 64, 2 * 4 * 8),
        (1, 32, 8, 1),  # a row costs what 32 do
        (16, 32, 8, 1),
        (64, 16, 4, 2),
        (16, 16, 16, 2),
    ],
)
def test_a_product_takes_a_cycle_for_each_block_and_depth(m, n, k, steps):
    result = timed(product(m, n, k), PLAIN)
    assert duration(result, "tensor") == steps * CYCLE
    assert result.breakdown_ps["tensor"] == (steps + TENSOR_STARTUP) * CYCLE
    assert result.flop == {"bf16": 2 * m * n * k}
    assert result.bytes["tsram"] == (
        result.bytes["tsram_dma_written"] + result.bytes["tsram_dma_read"] + steps * 32 * 8 * 4
    )


@pytest.mark.parametrize(
    ("a", "b", "depth"),
    [
        ("bf16", "bf16", 8),
        ("fp16", "fp16", 8),
        ("e4m3", "e4m3", 32),
        ("e5m2", "e4m3", 32),
        ("bf16", "e4m3", 8),  # the wider operand's rate
        ("i8", "i8", 8),  # exact in bf16
    ],
)
def test_each_format_has_its_depth(a, b, depth):
    acc = "i32" if a == "i8" else "fp32"
    result = timed(product(64, 64, 128, a, b, acc), PLAIN)
    assert duration(result, "tensor") == 4 * 128 // depth * CYCLE


@pytest.mark.parametrize(
    ("a", "b", "rate", "depth"),
    [
        ("e2m1", "e2m1", "fp4", 64),
        ("e4m3", "e2m1", "fp8", 32),
        ("e4m3", "e4m3", "fp8", 32),
        ("e2m1", "e5m2", "fp8", 32),
        ("bf16", "e2m1", "bf16", 8),
    ],
)
def test_a_scaled_product_runs_at_the_rate_of_its_wider_operand(a, b, rate, depth):
    result = timed(scaled_product(64, 64, 128, a, b), PLAIN)
    assert duration(result, "tensor") == 4 * 128 // depth * CYCLE
    assert result.flop == {rate: 2 * 64 * 64 * 128}


def test_fp4_is_twice_as_fast_as_fp8_and_bf16_a_quarter():
    chip = plain(tile__tensor__startup_cycles=0)
    kernels = {
        "fp4": scaled_product(64, 64, 256, "e2m1", "e2m1"),
        "fp8": product(64, 64, 256, "e4m3"),
        "bf16": product(64, 64, 256, "bf16"),
    }
    ps = {name: duration(timed(kernel, chip), "tensor") for name, kernel in kernels.items()}
    assert ps["fp8"] == 2 * ps["fp4"]
    assert ps["bf16"] == 4 * ps["fp8"]


def test_a_format_the_chip_lacks_runs_as_the_next_wider_one():
    """Only rooflines are known of such chips."""
    h100 = chips.get("h100")
    assert "fp4" not in h100.peak_flop_per_s
    result = timed(scaled_product(64, 64, 128, "e2m1", "e2m1"), h100, fidelity="roofline")
    assert result.flop == {"fp8": 2 * 64 * 64 * 128}


def without_wide_rates():
    """Describe an H100 that multiplies nothing wider than FP8."""
    lines = chips.dumps_toml(chips.get("h100")).splitlines()
    return chips.loads_toml("\n".join(x for x in lines if not x.startswith(("bf16 ", "base "))))


def test_a_chip_without_a_wide_enough_rate_is_refused_by_name():
    chip = without_wide_rates()
    with pytest.raises(ChipError) as caught:
        timed(product(64, 64, 128, "bf16"), chip, fidelity="roofline")
    assert "bf16 x bf16" in str(caught.value)
    assert caught.value.where == "peak_flop_per_s"


@pytest.mark.parametrize("elem", ["fp32", "fp64"])
def test_wide_products_run_on_the_vector_engine(elem):
    result = timed(product(16, 32, 64, elem, acc=elem), PLAIN)
    cycles = math.ceil(16 * 32 * 64 / (128 * 3)) + VECTOR_STARTUP
    assert duration(result, "vector") == cycles * CYCLE
    assert result.flop == {}
    assert result.occupancy["tensor"] == 0


def elementwise(names, elem="fp32", shape=(16, 64)):
    """Apply unary and binary ops one after the other."""
    w = Writer(x=f"ptr<{elem}>", y=f"ptr<{elem}>")
    block = w.load("x", shape)
    for name in names:
        block = w(name, block, block) if name in ("fadd", "fmul") else w(name, block)
    w.store("y", block)
    return w.done()


LANES = {"fp32": 128, "bf16": 256}


@pytest.mark.parametrize("elem", LANES)
@pytest.mark.parametrize(
    ("names", "ops", "functions"),
    [(["fadd"], 1, 0), (["fadd", "fmul", "abs"], 3, 0), (["exp"], 0, 1), (["exp", "fadd"], 1, 1)],
)
def test_neighbouring_vector_ops_are_one_instruction(elem, names, ops, functions):
    result = timed(elementwise(names, elem), PLAIN)
    cycles = 1024 * (ops / 3 + functions / 0.75) / LANES[elem]
    assert duration(result, "vector") == (math.ceil(cycles) + VECTOR_STARTUP) * CYCLE
    assert result.vector_ops == 1024 * len(names)


@pytest.mark.parametrize(("name", "functions"), [("atan", 1), ("tan", 2), ("cbrt", 2)])
def test_a_function_made_of_several_counts_as_several(name, functions):
    result = timed(elementwise([name]), PLAIN)
    cycles = 1024 * functions / 0.75 / 128
    assert duration(result, "vector") == (math.ceil(cycles) + VECTOR_STARTUP) * CYCLE
    assert result.vector_ops == 1024 * functions


def test_sixty_four_bits_count_twice():
    result = timed(elementwise(["fadd"], "fp64"), PLAIN)
    assert duration(result, "vector") == (math.ceil(2048 / 384) + VECTOR_STARTUP) * CYCLE


@pytest.mark.parametrize(("elem", "lanes"), [("fp32", 128), ("bf16", 256), ("e4m3", 256)])
def test_a_transposition_goes_through_the_reshaper(elem, lanes):
    w = Writer(x=f"ptr<{elem}>", y=f"ptr<{elem}>", z=f"ptr<{elem}>")
    block = w.load("x", (16, 64))
    w.store("z", block)  # a second user: it cannot be turned on its way in
    w.store("y", w("transpose", block, to=Type(elem, (64, 16)), order=(1, 0)))
    result = timed(w.done(), PLAIN)
    assert duration(result, "vector") == (1024 // lanes + VECTOR_STARTUP) * CYCLE


@pytest.mark.parametrize("what", ["transpose", "widen", "narrow"])
def test_the_dma_turns_and_converts_on_the_way(what):
    w = Writer(x="ptr<fp32>" if what == "narrow" else "ptr<bf16>", y="ptr<fp32>", z="ptr<bf16>")
    block = w.load("x", (16, 64))
    if what == "transpose":
        w.store("z", w("transpose", block, to=Type("bf16", (64, 16)), order=(1, 0)))
    elif what == "widen":
        w.store("y", w.convert(block, "fp32"))
    else:
        w.store("z", w.convert(block, "bf16"))
    result = timed(w.done(), PLAIN)
    assert [e.engine for e in result.events] == ["load", "store"]


def test_an_engine_waits_for_both_operands_and_not_longer():
    w = Writer(x="ptr<bf16>", w="ptr<bf16>", y="ptr<fp32>")
    operands = w.load("x", (32, 8)), w.load("w", (8, 1024))
    start = w.const(Type("fp32", (32, 1024)), 0.0)
    w.store("y", w("dot", *operands, start, to=start.type, order="pairs"))
    events = timed(w.done(), PLAIN).events
    ends = {e.number: e.end_ps for e in events}
    tensor = next(e for e in events if e.engine == "tensor")
    assert set(tensor.waits) <= {0, 1}
    assert max(ends[0], ends[1]) == ends[1]
    assert tensor.start_ps == ends[1] + TENSOR_STARTUP * CYCLE


def test_products_that_follow_at_once_find_the_pipeline_full():
    """The second starts when the first ends, though it adds to its result: both start up once."""
    w = Writer(x="ptr<bf16>", w="ptr<bf16>", y="ptr<fp32>")
    a, b = w.load("x", (32, 64)), w.load("w", (64, 32))
    total = w.const(Type("fp32", (32, 32)), 0.0)
    for _ in range(2):
        total = w("dot", a, b, total, to=total.type, order="pairs")
    w.store("y", total)
    result = timed(w.done(), plain(tile__control__issue_cycles=0))
    first, second = (e for e in result.events if e.engine == "tensor")
    assert second.start_ps == first.end_ps
    assert result.breakdown_ps["tensor"] == (2 * 8 + TENSOR_STARTUP) * CYCLE


def test_vector_work_that_is_in_the_way_of_the_next_is_done_in_order():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", z="ptr<fp32>")
    first = w("exp", w.load("x", (64, 64)))
    w.store("y", first)
    total = w.reduce(first, 0, "fadd")
    w.store("z", total)
    vectors = [e for e in timed(w.done(), PLAIN).events if e.engine == "vector"]
    assert [v.start_ps for v in vectors] == sorted(v.start_ps for v in vectors)
    assert vectors[-1].start_ps >= vectors[0].end_ps or len(vectors) == 1


@pytest.mark.parametrize("fidelity", ["tile", "roofline"])
def test_energy_is_what_each_operation_and_byte_costs(fidelity):
    result = timed(product(64, 64, 64), PLAIN, fidelity=fidelity)
    if fidelity == "roofline":
        joules = PLAIN.power.tdp_w * result.time_s
        assert result.energy_parts_j == {"tdp": pytest.approx(joules)}
        return
    pj, moved = PLAIN.power.energy_pj, result.bytes
    expected = {
        "leakage": PLAIN.power.leakage_w * result.time_s * 1e12,
        "clock": 1e9 * result.time_s * pj.clock_cycle,
        "tensor": 64**3 * pj.mac["bf16"],
        "vector": 0.0,
        "reshaper": 0.0,
        "tsram": moved["tsram"] * pj.tsram_byte,
        "csram": moved["csram"] * pj.csram_byte,
        "noc": moved["noc"] * pj.noc_byte,
        "hbm": (2 * 64 * 64 * 2 + 64 * 64 * 4) * pj.hbm_byte,
    }
    assert {k: v * 1e12 for k, v in result.energy_parts_j.items()} == pytest.approx(expected)


def test_energy_of_vector_work_is_that_of_its_operations_functions_and_moves():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    block = w("exp", w.load("x", (64, 32)))
    w.store("y", w("transpose", block, to=Type("fp32", (32, 64)), order=(1, 0)))
    result, pj = timed(w.done(), PLAIN), PLAIN.power.energy_pj
    parts = {name: joules * 1e12 for name, joules in result.energy_parts_j.items()}
    assert parts["vector"] == pytest.approx(64 * 32 * pj.transcendental_op)
    assert parts["reshaper"] == pytest.approx(64 * 32 * pj.move_32bit)


# -- the engine itself -----------------------------------------------------------------------------
def test_one_compiled_engine_plays_chips_of_every_size():
    program = Program()
    for clusters, tiles in ((1, 1), (1, 3), (2, 8), (5, 7)):
        chip = plain(clusters=clusters, tiles_per_cluster=tiles)
        assert simulated(program, chip, 2 * clusters * tiles, 3).time_ps > 0
    assert len(engine.play.signatures) == 1


def test_many_blocks_are_counted_once_each():
    block = 16 * 16
    program = Program(
        loads=(
            Access("x0", per_program=block, row_stride=16),
            Access("x1", per_step=block, row_stride=16),
        ),
    )
    grid, steps = 9_000, 2
    result = simulated(program, PLAIN, grid, steps, fidelity="roofline", max_events=0)
    counts = program.count(grid, steps)
    assert counts.unique_bytes == 4 * block * (grid + steps)
    assert result.bytes["hbm"] == counts.unique_bytes + counts.stored
    assert result.asked_bytes == counts.loaded + counts.stored
