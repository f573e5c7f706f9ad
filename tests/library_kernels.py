"""Small calls of every kernel of the library: name, and what runs it and returns its outputs.

Inputs come from a seed; with `device="meta"` they have shapes only, for what times them.
"""

from __future__ import annotations

import torch

from asterope.kernels import (
    ACTIVATION_FORMATS,
    CACHE_FORMATS,
    Blocks,
    Pages,
    Routing,
    ScaledOperand,
    absorbed_attention,
    attention,
    block_linear,
    clamped_swiglu,
    combine_rows,
    expanded_attention,
    group_by_expert,
    group_by_expert_reference,
    head_linear,
    linear,
    paged_attention,
    quantize_groups,
    quantize_rows,
    rms_norm,
    rotate_and_cache,
    route,
    scaled_linear,
    silu_mul,
    take_rows,
    turn_and_cache_latents,
    watched_choices,
)
from asterope.runtime import listen, stop_listening

__all__ = ["CALLS", "Recorder", "as_bytes", "random", "recorded", "scaled_weight"]


def random(*shape, seed=0, dtype=torch.float32, device="cpu", scale=1.0):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    return values.to(dtype).to(device)


def as_bytes(tensors):
    """Return the bytes of tensors of any type."""
    return b"".join(t.contiguous().view(torch.uint8).numpy().tobytes() for t in tensors)


def scaled_weight(fmt, n, k, device="cpu", seed=1):
    """Return a weight of a block format; that of `mxfp6` and `mxfp4_e1m2` is stored as e4m3."""
    return quantize_rows(random(n, k, seed=seed, dtype=torch.bfloat16, device=device), fmt)


def _linear(device, dtype, m=37, n=70, k=130, bias=True):
    x, w = (random(r, k, seed=r, dtype=dtype, device=device) for r in (m, n))
    out = torch.float32 if dtype.itemsize == 1 else None
    scales = {}
    if dtype.itemsize == 1:
        scales = {
            "x_scale": random(m, seed=3, device=device).abs(),
            "weight_scale": random(n, seed=4, device=device).abs(),
        }
    given = random(n, seed=5, dtype=torch.float32, device=device) if bias else None
    return [linear(x, w, bias=given, out_dtype=out, **scales)]


def _scaled_linear(device, weights, activations):
    x = random(21, 192, dtype=torch.bfloat16, device=device)
    operand = ScaledOperand(codes=x, format="bf16")
    if activations != "bf16":
        operand = quantize_rows(x, activations)
    return [scaled_linear(operand, scaled_weight(weights, 50, 192, device))]


def _walking_linear(device, stationary, scaled):
    """Products of which a panel stays while the other operand, pinned in CSRAM, passes."""
    moving = "w" if stationary == "x" else "x"
    blocks = Blocks(8, 32, 256, 8, 3, stationary=stationary, walk=2, pinned=moving)
    with watched_choices(instead=blocks):
        if scaled:
            return _scaled_linear(device, "mxfp4", "mxfp4")
        return _linear(device, torch.bfloat16)


def _block_linear(device):
    x, w = (random(r, 200, seed=r, dtype=torch.bfloat16, device=device) for r in (21, 50))
    operand = quantize_groups(x)
    made = block_linear(operand, quantize_groups(w))
    return [operand.codes, operand.scales, made]


def _quantize(device, fmt):
    made = quantize_rows(random(9, 160, dtype=torch.bfloat16, device=device, scale=3.0), fmt)
    return [t for t in (made.codes, made.scales, made.row_scale) if t is not None]


def _rms_norm(device):
    x, residual = (random(11, 100, seed=s, device=device) for s in (0, 1))
    y = rms_norm(x, random(100, seed=2, device=device), 1e-5, residual)
    return [y, residual]


def _gated(device):
    x = random(7, 2 * 90, dtype=torch.float16, device=device, scale=4.0)
    return [silu_mul(x), clamped_swiglu(x, alpha=1.702, limit=7.0)]


def _rotate_and_cache(device):
    batch, tokens, q_heads, kv_heads, dim, capacity = 2, 5, 6, 2, 24, 16
    qkv = random(batch * tokens, (q_heads + 2 * kv_heads) * dim, device=device)
    k_cache, v_cache = (torch.zeros(batch, kv_heads, capacity, dim, device=device) for _ in "kv")
    cos, sin = (random(capacity, dim // 2, seed=s, device=device) for s in (1, 2))
    gains = [random(dim, seed=s, device=device) for s in (3, 4)]
    q = rotate_and_cache(
        qkv, k_cache, v_cache, cos, sin, q_heads=q_heads, past=3, q_norm=gains[0], k_norm=gains[1]
    )
    return [q, k_cache, v_cache]


def _attention_in_blocks(device, fmt):
    batch, tokens, q_heads, kv_heads, dim, past = 2, 9, 6, 2, 64, 70
    qkv = random(
        batch * tokens, (q_heads + 2 * kv_heads) * dim, dtype=torch.bfloat16, device=device
    )
    shape = (batch, kv_heads, 96, dim)
    k, v = (CACHE_FORMATS[fmt].empty(shape, torch.bfloat16, device) for _ in "kv")
    held = (k.codes, v.codes, k.scales.view(torch.uint8), v.scales.view(torch.uint8))
    for each in held:
        each.zero_()
    cos, sin = (random(96, dim // 2, seed=s, device=device) for s in (1, 2))
    q = rotate_and_cache(qkv, k, v, cos, sin, q_heads=q_heads, past=past)
    return [q, *held, attention(q, k, v, past=past, scale=dim**-0.5)]


def _attention(device, window, sinks=None):
    batch, tokens, q_heads, kv_heads, dim, past = 2, 9, 6, 2, 24, 70
    q = random(batch * tokens, q_heads, dim, device=device)
    k, v = (random(batch, kv_heads, 96, dim, seed=s, device=device) for s in (1, 2))
    return [attention(q, k, v, past=past, scale=dim**-0.5, window=window, sinks=sinks)]


# Where pages lie decides where the kernel goes: kept, for timing reads them after the call.
_PAGES = Pages(*(
    torch.tensor(x, dtype=torch.int32)
    for x in ([[7, 2, 9, 4, 0], [3, 8, 1, 6, 5]], [37, 30], [0, 1, 10])
))  # fmt: skip


def _paged_attention(device):
    """Two sequences, one decoding and one reading a chunk, in pages of 8 in no order."""
    q = random(10, 6, 24, device=device)
    k, v = (random(10, 8, 2, 24, seed=s, device=device) for s in (1, 2))
    return [paged_attention(q, k, v, _PAGES, scale=24**-0.5)]


def _latents(device):
    """Two sequences of 30 tokens, the last 3 of them new: 5 heads over latents of 40 + 8."""
    kv, cache = (random(*shape, device=device) for shape in ((6, 48), (2, 32, 48)))
    q, expanded = (random(*shape, seed=1, device=device) for shape in ((6, 5, 24), (2, 30, 160)))
    cos, sin = (random(32, 4, seed=s, device=device) for s in (2, 3))
    gain, weight = random(40, seed=4, device=device), random(5, 40, 16, seed=5, device=device)
    turn_and_cache_latents(kv, q, cache, gain, cos, sin, past=27, eps=1e-6, pairs=True)
    absorbed = head_linear(q[..., :16], weight)
    asked = {"past": 27, "scale": 24**-0.5}
    made = absorbed_attention(absorbed, q[..., 16:], cache, **asked)
    return [q, cache, made, expanded_attention(q, expanded, cache, nope=16, **asked)]


# Which experts see whose rows decides where kernels go, so that timing them needs it.
_EXPERTS = torch.randint(5, (13, 2), generator=torch.Generator().manual_seed(0)).int()
_CHOSEN = group_by_expert_reference(_EXPERTS, 5)


def _linear_of_experts(device):
    x, w = (random(r, 70, seed=r, dtype=torch.bfloat16, device=device) for r in (26, 5 * 40))
    return [linear(x, w, experts=_CHOSEN.rows)]


def _route(device):
    found = route(random(13, 5, device=device), Routing(top_k=2, normalized=True))
    return [found.experts, found.shares]


def _route_in_groups(device):
    routing = Routing(
        top_k=3, normalized=True, scoring="sigmoid", groups=4, top_groups=2, scale=2.5
    )
    found = route(random(13, 12, device=device), routing, random(12, seed=1, device=device))
    return [found.experts, found.shares]


def _group_by_expert():
    found = group_by_expert(_EXPERTS, 5)
    return [found.tokens, found.places]


def _take_rows(device):
    return [take_rows(random(13, 70, device=device), _CHOSEN.tokens)]


def _combine_rows(device):
    shares = random(13, 2, seed=1, device=device)
    return [combine_rows(random(26, 70, device=device), _CHOSEN.places, shares)]


CALLS = {
    "linear of experts": lambda device="cpu": _linear_of_experts(device),
    "route": lambda device="cpu": _route(device),
    "route in groups": lambda device="cpu": _route_in_groups(device),
    "group_by_expert": lambda device="cpu": _group_by_expert(),
    "take_rows": lambda device="cpu": _take_rows(device),
    "combine_rows": lambda device="cpu": _combine_rows(device),
    "linear fp32": lambda device="cpu": _linear(device, torch.float32),
    "linear bf16": lambda device="cpu": _linear(device, torch.bfloat16),
    "linear fp8": lambda device="cpu": _linear(device, torch.float8_e4m3fn),
    "linear bf16 of one row": lambda device="cpu": _linear(device, torch.bfloat16, m=1, bias=False),
    **{
        f"linear where {stays} stays{', mxfp4' * scaled}": (
            lambda device="cpu", stays=stays, scaled=scaled: _walking_linear(device, stays, scaled)
        )
        for stays in ("x", "w")
        for scaled in (False, True)
    },
    "block_linear": lambda device="cpu": _block_linear(device),
    "rms_norm": lambda device="cpu": _rms_norm(device),
    "gates": lambda device="cpu": _gated(device),
    "rotate_and_cache": lambda device="cpu": _rotate_and_cache(device),
    "attention": lambda device="cpu": _attention(device, None),
    "attention with a window": lambda device="cpu": _attention(device, 20),
    **{
        f"attention over {fmt}": lambda device="cpu", fmt=fmt: _attention_in_blocks(device, fmt)
        for fmt in ("nvfp4", "mxfp4")
    },
    "attention with sinks": lambda device="cpu": _attention(device, None, random(6, device=device)),
    "latents": lambda device="cpu": _latents(device),
    "paged attention": lambda device="cpu": _paged_attention(device),
    **{
        f"quantize_rows {fmt}": lambda device="cpu", fmt=fmt: _quantize(device, fmt)
        for fmt in ACTIVATION_FORMATS
    },
    **{
        f"scaled_linear {w} x {a}": lambda device="cpu", w=w, a=a: _scaled_linear(device, w, a)
        for w, a in [("mxfp8", "mxfp8"), ("mxfp4", "mxfp4"), ("nvfp4", "nvfp4"), ("mxfp4", "bf16"),
                     ("mxfp4", "fp8"), ("mxfp6", "mxfp8")]
    },
}  # fmt: skip


class Recorder:
    """Keep the launches of a thread."""

    def __init__(self, wants_values):
        self.wants_values = wants_values
        self.launches = []

    def on_launch(self, launch):
        self.launches.append(launch)


def recorded(call):
    """Return the launches of a call that computes nothing: its tensors are on the meta device."""
    recorder = Recorder(wants_values=False)
    listen(recorder)
    try:
        call("meta")
    finally:
        stop_listening(recorder)
    return recorder.launches
