"""Run an unmodified Triton kernel: its values on this CPU, its time on Maia 200."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

import asterope
from asterope import chips


@triton.jit
def softmax_kernel(out_ptr, x_ptr, stride, columns, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + at, mask=at < columns, other=-float("inf"))
    numerator = tl.exp(x - tl.max(x, axis=0))
    tl.store(out_ptr + row * stride + at, numerator / tl.sum(numerator, axis=0), mask=at < columns)


def main() -> None:
    x = torch.randn(4096, 781, generator=torch.Generator().manual_seed(0))
    out = torch.empty_like(x)
    with asterope.simulate(chips.maia200(), max_events=1000) as timeline:
        softmax_kernel[(x.shape[0],)](out, x, x.stride(0), x.shape[1], BLOCK=1024)
    torch.testing.assert_close(out, torch.softmax(x, 1))
    result = timeline.launches[0].result
    print(f"{result.kernel} on {result.chip}: {1e6 * result.time_s:.2f} us")
    print(f"the roofline allows {1e-6 * result.roofline_ps:.2f} us")
    total = sum(result.breakdown_ps.values())
    for name, ps in sorted(result.breakdown_ps.items(), key=lambda item: -item[1]):
        print(f"  {name:<10} {ps / total:6.1%}")
    print(f"HBM moved {result.hbm_bytes / 1e6:.1f} MB, {1e3 * (result.energy_j or 0):.2f} mJ")


if __name__ == "__main__":
    main()
