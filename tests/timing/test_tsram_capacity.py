"""A program that does not fit into a tile's scratchpad is refused, with what is in the way."""

from __future__ import annotations

import pytest

from asterope.errors import CapacityError
from asterope.ir import Type, print_kernel
from asterope.runtime import TileKernel, optimise
from ir_builder import Writer
from sim_programs import PLAIN, Access, Program, plain, simulated, timed

KIB = 1024


def two_blocks(rows=256, elem="fp32"):
    """Load two blocks and add them: two are held at once, the sum takes the place of one."""
    w = Writer(x=f"ptr<{elem}>", y=f"ptr<{elem}>")
    w.builder.loc = "kernel.py:3"
    a = w.load("x", (rows, 64))
    a.hint = "gate"
    w.builder.loc = "kernel.py:4"
    b = w.load("x", (rows, 64), start=rows * 64)
    w.builder.loc = "kernel.py:5"
    w.store("y", w("fadd", a, b))
    return w.done()


BLOCK = 256 * 64 * 4


@pytest.mark.parametrize(("room", "fits"), [(2 * BLOCK, True), (2 * BLOCK - 1, False)])
def test_a_program_fits_to_the_byte(room, fits):
    chip = plain(tile__tsram__capacity_bytes=room)
    if fits:
        assert timed(two_blocks(), chip).tsram_bytes == 2 * BLOCK
        return
    with pytest.raises(CapacityError):
        timed(two_blocks(), chip)


def test_the_error_names_bytes_asked_bytes_there_tensor_and_line():
    with pytest.raises(CapacityError) as caught:
        timed(two_blocks(), plain(tile__tsram__capacity_bytes=100 * KIB))
    text = str(caught.value)
    assert caught.value.where == "kernel.py:3"
    assert f"needs {2 * BLOCK} bytes" in text
    assert f"of {100 * KIB};" in text
    assert f"gate fp32[256,64], {BLOCK} bytes" in text
    assert "smaller blocks" in caught.value.hint


def test_a_kernel_read_from_its_text_names_the_same_tensor():
    """Triton's cache keeps kernels as text, so this is what its users see."""
    kernel = optimise(two_blocks())
    errors = []
    for tile in (TileKernel(kernel), TileKernel.parse(print_kernel(kernel))):
        with pytest.raises(CapacityError) as caught:
            timed(tile, plain(tile__tsram__capacity_bytes=100 * KIB))
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


def test_a_kernel_read_from_its_text_labels_its_transfers_alike():
    kernel = optimise(two_blocks())
    labels = [
        [e.label for e in timed(tile, PLAIN).events]
        for tile in (TileKernel(kernel), TileKernel.parse(print_kernel(kernel)))
    ]
    assert labels[0] == labels[1]
    assert "load x" in labels[0]


def looped(stages, elem="bf16"):
    """Hold a product's accumulator, and the loop's operand as often as the pipeline asks."""
    return Program(elem, (64, 64), (Access("x0", 0, 0, 4096, 64),), ("dot",), num_stages=stages)


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
def test_a_load_in_a_loop_needs_a_buffer_for_each_stage(stages):
    operand = 64 * 64 * 2
    one = simulated(looped(1), PLAIN, 1, 4).tsram_bytes
    assert simulated(looped(stages), PLAIN, 1, 4).tsram_bytes == one + (stages - 1) * operand


def test_fewer_stages_are_hinted_at_where_there_are_several():
    for stages, says in ((3, True), (1, False)):
        with pytest.raises(CapacityError) as caught:
            simulated(looped(stages), plain(tile__tsram__capacity_bytes=9000), 1, 4)
        assert ("num_stages" in caught.value.hint) is says


def test_a_block_that_is_no_longer_used_makes_room():
    def chain(keep):
        w = Writer(x="ptr<fp32>", y="ptr<fp32>")
        blocks = [w.load("x", (64, 64))]
        for _ in range(4):
            blocks.append(w("exp", blocks[-1]))
            w.store("y", blocks[-1])
        if keep:
            for block in blocks:
                w.store("y", block)
        return timed(w.done(), PLAIN).tsram_bytes

    block = 64 * 64 * 4
    assert chain(keep=False) <= 2 * block
    assert chain(keep=True) == 5 * block


def test_addresses_and_masks_take_no_scratchpad():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    columns = w.iota(4096)
    mask = w.compare("slt", columns, w.const(columns.type, 4000))
    w.store("y", w.load("x", (4096,), mask=mask), mask=mask)
    assert timed(w.done(), PLAIN).tsram_bytes == 4096 * 4


def test_the_branches_of_an_if_do_not_add_up():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", n="i32")

    def branch(start):
        return [w("exp", w.load("x", (64, 64), start=start))]

    yes = w.compare("sgt", w["n"], w.const("i32", 0))
    (block,) = w.if_(yes, lambda: branch(0), lambda: branch(4096))
    w.store("y", block)
    assert timed(w.done(), PLAIN, args=[1]).tsram_bytes <= 2 * 64 * 64 * 4


def test_the_roofline_asks_for_no_room():
    result = timed(two_blocks(), plain(tile__tsram__capacity_bytes=KIB), fidelity="roofline")
    assert result.tsram_bytes == 2 * BLOCK


def test_a_constant_takes_no_room():
    w = Writer(y="ptr<fp32>")
    w.store("y", w.const(Type("fp32", (64, 64)), 0.0))
    assert timed(w.done(), PLAIN).tsram_bytes == 0
