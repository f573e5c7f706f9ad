"""vLLM's `unified_attention` over a paged cache against attention in float64."""

from __future__ import annotations

import pytest
import torch
from vllm.v1.attention.ops.triton_unified_attention import unified_attention

from conformance.cases.compare import assert_near

# Tokens asked for and tokens known, for each sequence of a batch.
BATCHES = {
    "mixed": [(1, 1328), (5, 18), (129, 463)],
    "decode": [(1, 523), (1, 37), (1, 2011)],
    "prefill": [(64, 64), (17, 17)],
}
PAGE, PAGES, SEGMENTS = 16, 512, 16


def exact(q, cache, table, lengths, scale, window, cap, sinks):
    """Attend in float64, one sequence and one head after the other."""
    found, start = [], 0
    group = q.shape[1] // cache[0].shape[2]
    for (asked, known), pages in zip(lengths, table, strict=True):
        keys, values = (
            side[pages[: -(-known // PAGE)]].double().flatten(0, 1)[:known] for side in cache
        )
        place = torch.arange(known - asked, known)[:, None]
        allowed = torch.arange(known) <= place
        if window is not None:
            allowed &= torch.arange(known) > place - window
        heads = []
        for head in range(q.shape[1]):
            scores = q[start : start + asked, head].double() @ keys[:, head // group].T * scale
            if cap:
                scores = cap * torch.tanh(scores / cap)
            scores = scores.masked_fill(~allowed, -torch.inf)
            if sinks is not None:
                sink = sinks[head].double().expand(asked, 1)
                scores = torch.cat([scores, sink], 1)
            weights = scores.softmax(1)[:, :known]
            heads.append(weights @ values[:, head // group])
        found.append(torch.stack(heads, 1))
        start += asked
    return torch.cat(found)


def run(lengths, heads, size, dtype, *, window=None, cap=0.0, with_sinks=False, is_split=False):
    """Call vLLM's launcher on random queries and pages; return what it finds and the truth."""
    torch.manual_seed(0)
    num_queries, num_keys = heads
    total = sum(asked for asked, _ in lengths)
    q = torch.randn(total, num_queries, size).to(dtype)
    cache = [torch.randn(PAGES, PAGE, num_keys, size).to(dtype) for _ in range(2)]
    most = max(known for _, known in lengths)
    table = torch.randint(0, PAGES, (len(lengths), -(-most // PAGE)), dtype=torch.int32)
    starts = torch.tensor([0, *(a for a, _ in lengths)]).cumsum(0, dtype=torch.int32)
    known = torch.tensor([k for _, k in lengths], dtype=torch.int32)
    sinks = torch.randn(num_queries).to(dtype) if with_sinks else None
    segments = {
        "seq_threshold_3D": 8, "num_par_softmax_segments": SEGMENTS,
        "softmax_segm_output": torch.zeros(total, num_queries, SEGMENTS, size),
        "softmax_segm_max": torch.zeros(total, num_queries, SEGMENTS),
        "softmax_segm_expsum": torch.zeros(total, num_queries, SEGMENTS),
    } if is_split else {}  # fmt: skip
    out = torch.empty_like(q)
    unified_attention(
        q=q, k=cache[0], v=cache[1], out=out, cu_seqlens_q=starts,
        max_seqlen_q=max(a for a, _ in lengths), seqused_k=known, max_seqlen_k=most,
        softmax_scale=size**-0.5, causal=True,
        window_size=(window - 1, 0) if window is not None else (-1, -1), block_table=table,
        softcap=cap, q_descale=None, k_descale=None, v_descale=None, sinks=sinks, **segments,
    )  # fmt: skip
    return out, exact(q, cache, table, lengths, size**-0.5, window, cap, sinks)


def check(found, truth, dtype):
    # The kernel rounds the weights of the softmax to the format of the values.
    assert_near(found, truth, 2048, slack=torch.finfo(dtype).eps)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("heads", [(4, 4), (8, 2), (5, 1)])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("window", [None, 64, 256])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cap", [0.0, 50.0])
def test_attention(batch, heads, size, window, dtype, cap):
    check(*run(BATCHES[batch], heads, size, dtype, window=window, cap=cap), dtype)


@pytest.mark.parametrize("heads", [(4, 4), (8, 2), (5, 1)])
@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_attention_in_segments(heads, window, dtype):
    check(*run(BATCHES["decode"], heads, 128, dtype, window=window, is_split=True), dtype)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("size", [64, 96, 256])
def test_attention_with_sinks(batch, size):
    found, truth = run(BATCHES[batch], (8, 2), size, torch.bfloat16, with_sinks=True)
    check(found, truth, torch.bfloat16)
