"""vLLM's `fused_moe_kernel` against the same products in float64."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from conformance.cases.compare import assert_near
from conformance.kernel_file import load_kernels

moe = load_kernels(
    "vllm.model_executor.layers.fused_moe.fused_moe", first=("vllm.envs", "vllm.triton_utils")
)
DTYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}
BLOCKS = {"BLOCK_SIZE_N": 64, "BLOCK_SIZE_K": 32, "GROUP_SIZE_M": 8, "SPLIT_K": 1}


def sorted_by_expert(chosen, block, num_experts):
    """Sort routed rows by expert, each expert padded to whole blocks with a row too many."""
    flat = chosen.flatten()
    ids, experts = [], []
    for expert in range(num_experts):
        rows = (flat == expert).nonzero().flatten().tolist()
        rows += [len(flat)] * (-len(rows) % block)
        ids += rows
        experts += [expert] * (len(rows) // block)
    return (torch.tensor(values, dtype=torch.int32) for values in (ids, experts, [len(ids)]))


def run(a, b, chosen, weights, block_m, *, scales=(None, None), bias=None, **flags):
    """Launch the kernel as vLLM does; return C[tokens, top_k, N]."""
    (tokens, top_k), (num_experts, n, k) = chosen.shape, b.shape
    ids, experts, padded = sorted_by_expert(chosen, block_m, num_experts)
    dtype = torch.bfloat16 if a.dtype not in DTYPES else a.dtype
    c = torch.zeros((tokens, top_k, n), dtype=dtype)
    a_scale, b_scale = scales
    options = dict.fromkeys(
        ("use_fp8_w8a8", "use_int8_w8a8", "use_int8_w8a16", "per_channel_quant"), False
    )
    grid = (triton.cdiv(len(ids), block_m) * triton.cdiv(n, BLOCKS["BLOCK_SIZE_N"]),)
    moe.fused_moe_kernel[grid](
        a, b, c, bias, a_scale, b_scale, weights, ids, experts, padded, n, k, len(ids),
        tokens * top_k, a.stride(0), a.stride(1), b.stride(0), b.stride(2), b.stride(1),
        c.stride(1), c.stride(2), 0, 0, b_scale.stride(0) if b_scale is not None else 0, 0,
        b_scale.stride(1) if b_scale is not None and b_scale.ndim > 1 else 0,
        bias.stride(0) if bias is not None else 0, bias.stride(1) if bias is not None else 0,
        0, 0, MUL_ROUTED_WEIGHT=weights is not None, top_k=top_k, compute_type=DTYPES[dtype],
        naive_block_assignment=False, HAS_BIAS=bias is not None, SWAP_AB=False,
        BLOCK_SIZE_M=block_m, **BLOCKS, **{**options, **flags},
    )  # fmt: skip
    return c


def exact(a, b, chosen, weights, bias=None):
    """Compute the same in float64."""
    c = torch.zeros((*chosen.shape, b.shape[1]), dtype=torch.float64)
    for expert in chosen.unique().tolist():
        rows, which = (chosen == expert).nonzero(as_tuple=True)
        c[rows, which] = a[rows].double() @ b[expert].double().T
    if bias is not None:
        c += bias.double()[chosen]
    return c * weights.double()[:, :, None] if weights is not None else c


def routed(tokens, num_experts, top_k):
    scores = torch.rand(tokens, num_experts)
    return scores.softmax(1).topk(top_k)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 33, 222])
@pytest.mark.parametrize(("n", "k"), [(128, 128), (1024, 512), (200, 511)])
@pytest.mark.parametrize(("num_experts", "top_k"), [(8, 2), (64, 6)])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_unquantized(dtype, tokens, n, k, num_experts, top_k, is_weighted):
    torch.manual_seed(0)
    a = (torch.randn(tokens, k) / 10).to(dtype)
    b = (torch.randn(num_experts, n, k) / 10).to(dtype)
    weights, chosen = routed(tokens, num_experts, top_k)
    weights = weights if is_weighted else None
    assert_near(run(a, b, chosen, weights, 16), exact(a, b, chosen, weights), k)


@pytest.mark.parametrize("block_m", [16, 64, 128])
def test_bias(block_m):
    torch.manual_seed(0)
    a, b = torch.randn(100, 128).bfloat16(), torch.randn(8, 256, 128).bfloat16()
    bias = torch.randn(8, 256).bfloat16()
    weights, chosen = routed(100, 8, 2)
    found = run(a, b, chosen, weights, block_m, bias=bias)
    assert_near(found, exact(a, b, chosen, weights, bias), 128)


@pytest.mark.parametrize("tokens", [1, 33, 222])
@pytest.mark.parametrize(("n", "k"), [(128, 128), (512, 511)])
def test_fp8_weights_and_activations(tokens, n, k):
    torch.manual_seed(0)
    a, b = torch.randn(tokens, k), torch.randn(8, n, k)
    a_scale, b_scale = a.abs().max().reshape(1) / 448, b.abs().amax((1, 2)) / 448
    a8 = (a / a_scale).to(torch.float8_e4m3fn)
    b8 = (b / b_scale[:, None, None]).to(torch.float8_e4m3fn)
    weights, chosen = routed(tokens, 8, 2)
    found = run(a8, b8, chosen, weights, 16, scales=(a_scale, b_scale), use_fp8_w8a8=True)
    wide = a8.double() * a_scale.double(), b8.double() * b_scale.double()[:, None, None]
    assert_near(found, exact(*wide, chosen, weights), k)


@pytest.mark.parametrize("tokens", [1, 33, 222])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_int8_weights(tokens, dtype):
    torch.manual_seed(0)
    a = torch.randn(tokens, 256).to(dtype)
    b = torch.randint(-127, 128, (8, 512, 256), dtype=torch.int8)
    b_scale = torch.rand(8, 512) / 127
    weights, chosen = routed(tokens, 8, 2)
    found = run(a, b, chosen, weights, 16, scales=(None, b_scale), use_int8_w8a16=True)
    assert_near(found, exact(a, b.double() * b_scale.double()[:, :, None], chosen, weights), 256)
