"""What is pinned in CSRAM stays while other tiles pass through, up to seven eighths of it.

Loads with `eviction_policy="evict_last"` are pinned.
"""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from asterope.runtime import simulate
from sim_programs import plain

BLOCK = 1024
BYTES = 4 * BLOCK


@triton.jit
def again_kernel(x, y, out, KEPT: tl.constexpr, STREAMED: tl.constexpr, POLICY: tl.constexpr):
    """Read blocks of x, then as many of y, then those of x again."""
    at = tl.arange(0, 1024)
    total = tl.zeros((1024,), dtype=tl.float32)
    for i in range(KEPT):
        total += tl.load(x + i * 1024 + at, eviction_policy=POLICY)
    for i in range(STREAMED):
        total += tl.load(y + i * 1024 + at)
    for i in range(KEPT):
        total += tl.load(x + i * 1024 + at, eviction_policy=POLICY)
    tl.store(out + at, total)


def blocks_read(policy, *, kept, streamed, room):
    """Return how many blocks come from HBM, where a CSRAM has room for some."""
    x, y, out = (torch.empty(n * BLOCK, device="meta") for n in (kept, streamed, 1))
    chip = plain(cluster__csram_bytes=room * BYTES, tile__tsram__capacity_bytes=1 << 20)
    with simulate(chip, values=False) as timeline:
        again_kernel[(1,)](x, y, out, KEPT=kept, STREAMED=streamed, POLICY=policy)
    return timeline.launches[0].result.bytes["hbm_read"] // BYTES


def test_a_pinned_block_is_read_once_however_much_passes():
    assert blocks_read("evict_last", kept=2, streamed=40, room=8) == 42
    assert blocks_read("", kept=2, streamed=40, room=8) == 44


def test_without_pressure_pinning_changes_nothing():
    assert blocks_read("", kept=2, streamed=4, room=8) == 6
    assert blocks_read("evict_last", kept=2, streamed=4, room=8) == 6


@pytest.mark.parametrize(("kept", "again"), [(7, 0), (8, 8)])
def test_seven_eighths_can_be_pinned_and_the_oldest_go_first(kept, again):
    assert blocks_read("evict_last", kept=kept, streamed=20, room=8) == kept + 20 + again


@pytest.mark.parametrize("policy", ["evict_last", "evict_first", ""])
def test_no_other_policy_pins(policy):
    pinned = blocks_read(policy, kept=2, streamed=40, room=8) == 42
    assert pinned == (policy == "evict_last")
