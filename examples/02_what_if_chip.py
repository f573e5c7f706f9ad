"""Change a chip, and see what a kernel makes of it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

import asterope
from asterope import chips


@triton.jit
def scale_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, 2.0 * tl.load(x_ptr + at, mask=at < n), mask=at < n)


def main() -> None:
    x, y = (torch.empty(1 << 24, device="meta") for _ in range(2))
    today = chips.maia200()
    what_ifs = {
        "as described": {},
        "twice the HBM bandwidth": {"hbm.bandwidth_bytes_per_s": 14e12},
        "rows opened at no cost": {"hbm.access.activate_s": 0.0},
        "half the clusters": {"clusters": 2},
    }
    for name, figures in what_ifs.items():
        chip = chips.replace(today, figures)
        with asterope.simulate(chip, values=False) as timeline:
            scale_kernel[(triton.cdiv(x.numel(), 8192),)](x, y, x.numel(), BLOCK=8192)
        result = timeline.launches[0].result
        rate = result.hbm_bytes / result.time_s
        print(
            f"{name:<26} {1e6 * result.time_s:7.2f} us  {rate / 1e12:.2f} TB/s "
            f" bound by {result.bound_by}"
        )


if __name__ == "__main__":
    main()
