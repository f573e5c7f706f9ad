"""Operators of the maker's libraries on GPUs, timed in closed form from calibrated figures.

Where the inside of a chip is described, a kernel is simulated; where it is not, an operator is
timed here: products, attention, experts and collectives, from shapes and a handful of figures of
the chip that measured operators were fitted to (`chips.Achieved`). Collectives on a fabric of
trays and switches follow from its links.
"""

from __future__ import annotations

from asterope.operators.attention import Heads, LatentHeads, attention_decode, attention_prefill
from asterope.operators.collectives import COLLECTIVES, collective
from asterope.operators.elementwise import elementwise
from asterope.operators.experts import expert_loads, expert_product, experts
from asterope.operators.latent import latent_attention
from asterope.operators.products import gemm
from asterope.operators.steps import Chunk, decode_step, mixed_step, prefill_step
from asterope.operators.timing import OperatorTime, achieved, check_sizes, rate_on
from asterope.operators.transformer import (
    Execution,
    MixtureOfExperts,
    Parallel,
    Precision,
    Transformer,
)
from asterope.operators.triton_experts import triton_experts

__all__ = [
    "COLLECTIVES",
    "Chunk",
    "Execution",
    "Heads",
    "LatentHeads",
    "MixtureOfExperts",
    "OperatorTime",
    "Parallel",
    "Precision",
    "Transformer",
    "achieved",
    "attention_decode",
    "attention_prefill",
    "check_sizes",
    "collective",
    "decode_step",
    "elementwise",
    "expert_loads",
    "expert_product",
    "experts",
    "gemm",
    "latent_attention",
    "mixed_step",
    "prefill_step",
    "rate_on",
    "triton_experts",
]
