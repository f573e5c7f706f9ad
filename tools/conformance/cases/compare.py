"""How near to float64 a kernel of these cases has to be."""

from __future__ import annotations

import torch

__all__ = ["assert_near"]


def assert_near(
    found: torch.Tensor, exact: torch.Tensor, num_terms: int, slack: float = 0.0
) -> None:
    """Check fp32 sums of so many terms, rounded once to what is found.

    `slack` allows for roundings inside the kernel, relative to the largest value.
    """
    scale = exact.abs().max()
    allowed = torch.finfo(found.dtype).eps * exact.abs() / 2
    allowed += scale * (num_terms * torch.finfo(torch.float32).eps + slack)
    difference = (found.double() - exact).abs()
    worst = (difference - allowed).max()
    assert worst <= 0, f"{difference.max():.3g} from float64, of {scale:.3g}, {worst:.3g} too far"
