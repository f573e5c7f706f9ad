"""Pointers say which memory they point into, and only that memory moves their bytes."""

from __future__ import annotations

import pytest

from asterope.ir import parse_kernel, print_kernel
from ir_builder import Writer
from sim_programs import PLAIN, plain, timed

SIZE = 64 * 1024


def copy_kernel(source, target):
    """Write a kernel that copies a block between memories."""
    w = Writer(x=f"ptr<fp32, {source}>", y=f"ptr<fp32, {target}>")
    shape = (SIZE // 4,)
    block = w.load_at(w.pointers(w["x"], shape, (1,)))
    w.store_at(w.pointers(w["y"], shape, (1,)), block)
    return w.done()


@pytest.mark.parametrize(
    ("source", "target", "moved"),
    [
        # A tile that is only read is kept in CSRAM on its way, for others that may want it.
        ("hbm", "hbm", {"hbm_read": SIZE, "hbm_written": SIZE, "csram": SIZE, "noc": 2 * SIZE}),
        ("csram", "hbm", {"hbm_read": 0, "hbm_written": SIZE, "csram": SIZE, "noc": SIZE}),
        ("hbm", "csram", {"hbm_read": SIZE, "hbm_written": 0, "csram": 2 * SIZE, "noc": SIZE}),
        ("csram", "csram", {"hbm_read": 0, "hbm_written": 0, "csram": 2 * SIZE, "noc": 0}),
        ("tsram", "tsram", {"hbm_read": 0, "hbm_written": 0, "csram": 0, "noc": 0}),
    ],
)
def test_bytes_move_through_the_memory_the_pointer_names(source, target, moved):
    result = timed(copy_kernel(source, target), PLAIN)
    assert {name: result.bytes[name] for name in moved} == moved
    assert result.asked_bytes == 2 * SIZE


def test_a_nearer_memory_is_never_slower():
    times = [timed(copy_kernel(s, s), PLAIN).time_ps for s in ("tsram", "csram", "hbm")]
    assert times == sorted(times)
    assert len(set(times)) == len(times)


def test_faster_hbm_does_not_help_a_kernel_that_stays_in_csram():
    kernel = copy_kernel("csram", "csram")
    slow, fast = (timed(kernel, plain(hbm__bandwidth_bytes_per_s=b)) for b in (1e12, 2e12))
    assert slow.time_ps == fast.time_ps


def test_memory_spaces_survive_the_text_form():
    text = print_kernel(copy_kernel("csram", "tsram"))
    assert "ptr<fp32, csram>" in text
    assert "ptr<fp32, tsram>" in text
    assert print_kernel(parse_kernel(text)) == text
