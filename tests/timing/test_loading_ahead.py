"""What a first step loads ahead is what its launches run."""

from __future__ import annotations

import threading

import torch

from asterope import chips
from asterope.kernels import silu_mul
from asterope.runtime import simulate
from asterope.sim import load_counting, totals
from asterope.triton_backend.ahead import load_ahead


def test_the_loop_that_is_loaded_is_the_one_that_counts():
    load_counting()
    loaded = list(totals._count.signatures)
    with simulate(chips.maia200(), values=False, fidelity="roofline"):
        silu_mul(torch.empty(64, 256, device="meta"))
    assert totals._count.signatures == loaded  # another type of array would compile another


def test_nothing_goes_on_behind_it():
    load_ahead()
    assert all(thread.name != "asterope-digest" for thread in threading.enumerate())
