"""Kernels read memory by shape and stride alone: operands that do not fit are refused by name."""

from __future__ import annotations

import pytest
import torch

from asterope.errors import KernelError, ShapeError
from asterope.kernels import (
    ScaledOperand,
    attention,
    linear,
    quantize_rows,
    rms_norm,
    rotate_and_cache,
    scaled_linear,
    silu_mul,
)
from library_kernels import random

STRIDED = torch.zeros(10, 2)[:, 0]


def refused(error, where, says, call):
    with pytest.raises(error) as caught:
        call()
    assert caught.value.where == where
    assert says in caught.value.what


# -- linear ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (torch.float64, torch.float64), (torch.int8, torch.int8), (torch.float32, torch.float64),
        (torch.bfloat16, torch.float32), (torch.bfloat16, torch.float16),
        (torch.float8_e4m3fn, torch.bfloat16),
    ],
)  # fmt: skip
def test_types_that_are_not_multiplied_are_named(x, weight):
    with pytest.raises(KernelError) as caught:
        linear(torch.zeros(2, 8).to(x), torch.zeros(3, 8).to(weight))
    assert caught.value.where == "linear"
    for dtype in (x, weight):
        assert str(dtype).removeprefix("torch.") in caught.value.what
    assert "bfloat16" in caught.value.hint


@pytest.mark.parametrize("name", ["bias", "x_scale", "weight_scale"])
def test_a_vector_with_gaps_is_refused(name):
    refused(
        ShapeError, "linear", f"{name} [10] is not contiguous",
        lambda: linear(torch.zeros(10, 8), torch.zeros(10, 8), **{name: STRIDED}),
    )  # fmt: skip


@pytest.mark.parametrize("wrong", ["bias", "x_row_scale", "weight_row_scale"])
def test_a_bias_or_scale_of_another_length_is_refused_beside_blocks(wrong):
    x, weight = (quantize_rows(random(r, 64), "nvfp4") for r in (4, 6))
    given = {
        "bias": torch.zeros(6),
        "x_row_scale": x.row_scale,
        "weight_row_scale": weight.row_scale,
    }
    given[wrong] = torch.zeros(5)

    def call():
        operands = [
            ScaledOperand(codes=q.codes, format=q.format, scales=q.scales, row_scale=given[name])
            for q, name in ((x, "x_row_scale"), (weight, "weight_row_scale"))
        ]
        scaled_linear(*operands, bias=given["bias"])

    refused(ShapeError, "linear", f"{wrong} has shape [5]", call)


@pytest.mark.parametrize("fmt", ["mxfp4", "nvfp4"])
def test_scales_of_another_number_of_rows_are_refused(fmt):
    good = quantize_rows(random(6, 64), fmt)
    x = ScaledOperand(codes=torch.zeros(4, 64, dtype=torch.bfloat16), format="bf16")
    short = ScaledOperand(
        codes=good.codes, format=good.format, scales=good.scales[:5], row_scale=good.row_scale
    )
    refused(ShapeError, "linear", "weight_scales", lambda: scaled_linear(x, short))


# -- rows ------------------------------------------------------------------------------------------
def test_rms_norm_refuses_what_does_not_fit():
    x, gain = torch.zeros(4, 8), torch.ones(8)
    for says, call in (
        ("rows of x [8, 4]", lambda: rms_norm(torch.zeros(4, 8).T, torch.ones(4), 1e-5)),
        ("x [8] is not a matrix", lambda: rms_norm(torch.zeros(8), gain, 1e-5)),
        ("weight has shape [7], not [8]", lambda: rms_norm(x, torch.ones(7), 1e-5)),
        ("residual [3, 8] does not fit", lambda: rms_norm(x, gain, 1e-5, torch.zeros(3, 8))),
        ("rows of residual", lambda: rms_norm(x, gain, 1e-5, torch.zeros(8, 4).T)),
    ):
        refused(ShapeError, "rms_norm", says, call)


def test_silu_mul_refuses_what_does_not_fit():
    refused(ShapeError, "silu_mul", "rows of 7", lambda: silu_mul(torch.zeros(4, 7)))
    refused(ShapeError, "silu_mul", "rows of gate_up", lambda: silu_mul(torch.zeros(8, 4).T))
    assert silu_mul(torch.zeros(4, 0)).shape == (4, 0)


# -- caches ----------------------------------------------------------------------------------------
def rotate(rows=4, width=4 * 8, past=0, places=16, **changes):
    """Rotate two query heads and one key head of width 8, of two sequences."""
    given = {
        "qkv": torch.zeros(rows, width),
        "k_cache": torch.zeros(2, 1, 16, 8),
        "v_cache": torch.zeros(2, 1, 16, 8),
        "cos": torch.zeros(places, 4),
        "sin": torch.zeros(places, 4),
    }
    options = {"q_norm": changes.pop("q_norm", None), "k_norm": changes.pop("k_norm", None)}
    return rotate_and_cache(*{**given, **changes}.values(), q_heads=2, past=past, **options)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"width": 33}, "qkv [4, 33] is not 32 wide"),
        ({"rows": 3}, "3 rows are not those of 2 sequences"),
        ({"past": 15}, "15 + 2 tokens are outside the cache's 16"),
        ({"past": -1}, "-1 + 2 tokens are outside"),
        ({"places": 1}, "angles of 1 and 1 positions are not those of 2"),
        ({"sin": torch.zeros(15, 4)}, "angles of 16 and 15"),
        ({"v_cache": torch.zeros(2, 1, 15, 8)}, "keys [2, 1, 16, 8] and values [2, 1, 15, 8]"),
        ({"q_norm": torch.ones(4), "k_norm": torch.ones(8)}, "q_norm has shape [4], not [8]"),
        (
            {"k_cache": torch.zeros(2, 1, 8, 16).mT, "v_cache": torch.zeros(2, 1, 8, 16).mT},
            "tokens of a head are not contiguous",
        ),
    ],
)
def test_rotate_and_cache_refuses_what_does_not_fit(changes, says):
    rotate()
    refused(ShapeError, "rotate_and_cache", says, lambda: rotate(**changes))


@pytest.mark.parametrize(
    ("q", "past", "says"),
    [
        (torch.zeros(3, 4, 8), 0, "3 rows are not those of 2 sequences"),
        (torch.zeros(4, 3, 8), 0, "q [4, 3, 8] does not fit 2 key heads of 8"),
        (torch.zeros(4, 4, 6), 0, "q [4, 4, 6] does not fit"),
        (torch.zeros(4, 8, 4).mT, 0, "contiguous"),
        (torch.zeros(4, 4, 8), 15, "15 + 2 tokens are outside the cache's 16"),
    ],
)
def test_attention_refuses_what_does_not_fit(q, past, says):
    k, v = (torch.zeros(2, 2, 16, 8) for _ in "kv")
    refused(ShapeError, "attention", says, lambda: attention(q, k, v, past=past, scale=1.0))
