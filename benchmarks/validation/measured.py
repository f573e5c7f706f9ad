"""Measured GPU operators, read from a table, each with the operator that predicts it.

The table has a row a measurement: op, hardware, n_chips, dtype, m, n, k, batch, seq_q, seq_kv,
heads, kv_heads, head_dim, shape, bytes_or_tokens, metric, value, unit, software, source.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.validation.routed import drawn_loads

from asterope import operators
from asterope.chips import Chip
from asterope.operators import OperatorTime

__all__ = ["Measurement", "read"]

CHIPS = {"A100-SXM4-80GB": "a100", "H100-SXM-80GB": "h100"}

# What a name in the column dtype means: rate format, bits of A and of B.
_FORMATS: Mapping[str, tuple[str, float, float]] = {
    "bfloat16": ("bf16", 16, 16),
    "fp8": ("fp8", 8, 8),
    "fp8_block": ("fp8", 8, 8),
    "sq": ("int8", 8, 8),
    "int8_wo": ("bf16", 16, 8),
    "int4_wo": ("bf16", 16, 4.25),
    "w4a16_mxfp4": ("bf16", 16, 4.25),
}
_FIRST = "trtllm 1.0.0"
"""Collected with a cache in which values are where the keys are (CacheType.SELFKONLY), and with
loads of experts as `routed.py` has them.

Source: collector/trtllm/collect_attn.py of NVIDIA aiconfigurator at efcae124, mended later:
"SELFKONLY is reserved for MLA"."""
_TRITON = "w4a16_mxfp4"
"""What TensorRT-LLM runs in Triton's kernels on Hopper; the others' rows say `cutlass`."""
_EXPERTS = re.compile(
    r"hidden (\d+) inter (\d+) topk (\d+) experts (\d+) moe_tp (\d+) moe_ep (\d+)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One measured operator.

    `family` is what a table groups by, `variant` its formats, `shape` what a split holds out.
    """

    row: str
    chip: str
    family: str
    variant: str
    shape: tuple[float, ...]
    words: str
    time_s: float
    source: str
    predict: Callable[[Chip], OperatorTime]


def read(path: Path) -> list[Measurement]:
    """Read what the model has an operator for, in the order of the file."""
    with path.open(newline="", encoding="utf-8") as file:
        return [found for row in csv.DictReader(file) for found in _measurements(row)]


def _measurements(row: Mapping[str, str]) -> Iterator[Measurement]:
    chip, reader = CHIPS.get(row["hardware"]), _READERS.get(row["op"])
    if (
        chip is None
        or reader is None
        or row["metric"] != "time"
        or not row["unit"].startswith("us")
    ):
        return
    found = reader(row)
    if found is None:
        return
    family, variant, shape, predict = found
    words = " ".join(f"{n:g}" if isinstance(n, (int, float)) else str(n) for n in shape)
    yield Measurement(
        row=row["id"], chip=chip, family=family, variant=variant, shape=shape, words=words,
        time_s=float(row["value"]) * 1e-6, source=row["software"], predict=predict,
    )  # fmt: skip


_Found = tuple[str, str, tuple[float, ...], Callable[[Chip], OperatorTime]]


def _gemm(row: Mapping[str, str]) -> _Found | None:
    if row["dtype"] not in _FORMATS or not row["software"].startswith("trtllm"):
        return None
    rate, a_bits, b_bits = _FORMATS[row["dtype"]]
    m, n, k = (int(row[name]) for name in "mnk")
    predict = partial(
        operators.gemm, m=m, n=n, k=k, rate=rate, bits=(a_bits, b_bits),
        quantizes=row["dtype"] == "fp8", block_scaled=row["dtype"] == "fp8_block",
    )  # fmt: skip
    return "gemm", row["dtype"], (n, k, m), predict


def _cache_bits(row: Mapping[str, str]) -> int:
    return 8 if row["dtype"].endswith("kv fp8") else 16


def _rate(row: Mapping[str, str]) -> str:
    """Return what attention multiplies prompts in: the cache's format, whose paged kernel it takes.

    Source: attentionOp.cpp of TensorRT-LLM 1.3.0rc20, `hasFp8KvCache() && use_paged_context_fmha`.
    """
    return "fp8" if row["dtype"].endswith("kv fp8") else "bf16"


def _attention(row: Mapping[str, str], *, decode: bool) -> _Found:
    batch, queries, keys, query, shared, dim = (
        int(row[name]) for name in ("batch", "seq_q", "seq_kv", "heads", "kv_heads", "head_dim")
    )
    heads = operators.Heads(
        query=query, key_value=shared, dim=dim, cache_bits=_cache_bits(row),
        tied=decode and row["software"].startswith(_FIRST),
    )  # fmt: skip
    if decode:
        predict = partial(operators.attention_decode, heads=heads, batch=batch, keys=keys)
        return "attention_decode", row["dtype"], (query, shared, batch, keys), predict
    predict = partial(
        operators.attention_prefill, heads=heads, batch=batch, queries=queries, rate=_rate(row)
    )
    return "attention_prefill", row["dtype"], (query, shared, batch, queries), predict


def _latent(row: Mapping[str, str], *, decode: bool) -> _Found:
    batch, queries, keys, query = (int(row[name]) for name in ("batch", "seq_q", "seq_kv", "heads"))
    heads = operators.LatentHeads(query=query, cache_bits=_cache_bits(row), absorbed=decode)
    if decode:
        predict = partial(operators.attention_decode, heads=heads, batch=batch, keys=keys)
        return "mla_decode", row["dtype"], (query, batch, keys), predict
    predict = partial(operators.attention_prefill, heads=heads, batch=batch, queries=queries)
    return "mla_prefill", row["dtype"], (query, batch, queries), predict


def _experts(row: Mapping[str, str]) -> _Found | None:
    found = _EXPERTS.match(row["shape"])
    if found is None or row["dtype"] not in _FORMATS:
        return None
    hidden, inter, top_k, num, tp, ep = map(int, found.groups())
    tokens, law = int(row["bytes_or_tokens"]), re.search(r"power_law_([\d.]+)", row["notes"])
    skew = float(law[1]) if law else 0.0
    rate, a_bits, b_bits = _FORMATS[row["dtype"]]
    old = row["software"].startswith(_FIRST)
    spread = drawn_loads if old and skew else operators.expert_loads
    loads = spread(num, top_k, tokens, ranks=ep, skew=skew)
    what: Mapping[str, Any] = {
        "loads": loads, "hidden": hidden, "intermediate": inter // tp, "rate": rate,
        "bits": (a_bits, b_bits), "tokens": tokens,
    }  # fmt: skip
    predict = partial(operators.experts, **what, block_scaled=row["dtype"] == "fp8_block")
    if row["dtype"] == _TRITON:
        predict = partial(operators.triton_experts, **what, routed=tokens * top_k)
    shape = (hidden, inter, top_k, num, tp, ep, tokens, skew)
    return "experts", row["dtype"], shape, predict


def _collective(row: Mapping[str, str]) -> _Found | None:
    if row["software"].startswith("TRTLLM"):
        size, chips = int(float(row["bytes_or_tokens"])), int(row["n_chips"])
        predict = partial(
            operators.collective, name="all_reduce", num_bytes=size, chips=chips, fused=True
        )
        return "fused_all_reduce", row["dtype"], (chips, size), predict
    if not row["software"].startswith("NCCL"):
        return None
    name = "all_to_all" if row["op"] == "alltoall" else row["op"]
    size, chips = int(float(row["bytes_or_tokens"])), int(row["n_chips"])
    predict = partial(operators.collective, name=name, num_bytes=size, chips=chips)
    return name, row["dtype"], (chips, size), predict


_READERS: Mapping[str, Callable[[Mapping[str, str]], _Found | None]] = {
    "gemm": _gemm,
    "attention_prefill": partial(_attention, decode=False),
    "attention_decode": partial(_attention, decode=True),
    "mla_prefill": partial(_latent, decode=False),
    "mla_decode": partial(_latent, decode=True),
    "moe_grouped_ffn": _experts,
    "all_reduce": _collective,
    "all_gather": _collective,
    "reduce_scatter": _collective,
    "alltoall": _collective,
}
