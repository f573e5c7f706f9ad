"""Matrices of more than 2^31 elements: addresses do not wrap, so all their bytes are moved."""

from __future__ import annotations

import pytest
import torch

import asterope
from asterope import chips
from asterope.kernels import ScaledOperand, linear, quantize_rows, rms_norm, scaled_linear, silu_mul

ROWS, WIDTH = 1 << 19, 1 << 13


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def hbm_bytes(call):
    with asterope.simulate(chips.maia200(), values=False, fidelity="roofline") as timeline:
        call()
    (launch,) = timeline.launches
    return launch.result.hbm_bytes


X = 2 * ROWS * WIDTH
CASES = {
    "linear": (lambda: linear(meta(ROWS, WIDTH), meta(16, WIDTH)), X + 2 * 16 * (WIDTH + ROWS)),
    "wide output": (
        lambda: linear(meta(ROWS, 16), meta(WIDTH, 16)), X + 2 * 16 * (WIDTH + ROWS),
    ),
    "rms_norm": (lambda: rms_norm(meta(ROWS, WIDTH), meta(WIDTH), 1e-6), 2 * X + 2 * WIDTH),
    "silu_mul": (lambda: silu_mul(meta(ROWS, WIDTH)), X + X // 2),
    "quantize to fp8": (lambda: quantize_rows(meta(ROWS, WIDTH), "fp8"), X + X // 2 + 4 * ROWS),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_byte_of_a_large_matrix_is_moved(name):
    call, expected = CASES[name]
    assert hbm_bytes(call) == expected


def test_every_byte_of_a_large_scaled_matrix_is_moved():
    x, weight = (
        ScaledOperand(
            codes=meta(rows, WIDTH, dtype=torch.float8_e4m3fn),
            format="e4m3",
            scales=meta(rows, WIDTH // 32, dtype=torch.uint8),
        )
        for rows in (ROWS, 16)
    )
    moved = hbm_bytes(lambda: scaled_linear(x, weight))
    assert moved == (ROWS + 16) * (WIDTH + WIDTH // 32) + 2 * 16 * ROWS
