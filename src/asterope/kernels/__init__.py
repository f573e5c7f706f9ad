"""The kernel library: Triton kernels, each with the plain computation it stands for."""

from __future__ import annotations

from asterope.kernels.activation import (
    clamped_swiglu,
    clamped_swiglu_reference,
    silu_mul,
    silu_mul_reference,
)
from asterope.kernels.attend_rows import ATTENDING
from asterope.kernels.attention import attention, attention_reference
from asterope.kernels.attention_cycles import AttentionShape, KeyBlocks
from asterope.kernels.block_linear import block_linear, block_linear_reference
from asterope.kernels.cache_formats import (
    CACHE_FORMATS,
    BlockRows,
    CacheFormat,
    CacheRows,
    cache_format,
)
from asterope.kernels.choices import watched_choices
from asterope.kernels.experts import ExpertRows
from asterope.kernels.head_linear import head_linear, head_linear_reference
from asterope.kernels.key_blocks import ConsideredKeys, choose_key_blocks, considered_keys
from asterope.kernels.latent_attention import (
    absorbed_attention,
    absorbed_attention_reference,
    expanded_attention,
    expanded_attention_reference,
    latent_attention,
)
from asterope.kernels.latent_cache import turn_and_cache_latents
from asterope.kernels.latent_way import LatentStep, expands
from asterope.kernels.linear import linear, linear_reference
from asterope.kernels.norm import rms_norm, rms_norm_reference
from asterope.kernels.paged_attention import (
    Pages,
    paged_attention,
    paged_attention_reference,
)
from asterope.kernels.product_cycles import ProductCycles
from asterope.kernels.quantize import ACTIVATION_FORMATS, quantize_groups, quantize_rows
from asterope.kernels.rotary import rotate_and_cache
from asterope.kernels.route import Routes, Routing, Scoring, route, route_reference
from asterope.kernels.routing import (
    Grouping,
    combine_rows,
    combine_rows_reference,
    group_by_expert,
    group_by_expert_reference,
    take_rows,
)
from asterope.kernels.scaled_linear import ScaledOperand, scaled_linear
from asterope.kernels.tiling import (
    Blocks,
    Choice,
    Considered,
    choose_blocks,
    considered,
    finalists,
)

__all__ = [
    "ACTIVATION_FORMATS",
    "ATTENDING",
    "CACHE_FORMATS",
    "AttentionShape",
    "BlockRows",
    "Blocks",
    "CacheFormat",
    "CacheRows",
    "Choice",
    "Considered",
    "ConsideredKeys",
    "ExpertRows",
    "Grouping",
    "KeyBlocks",
    "LatentStep",
    "Pages",
    "ProductCycles",
    "Routes",
    "Routing",
    "ScaledOperand",
    "Scoring",
    "absorbed_attention",
    "absorbed_attention_reference",
    "attention",
    "attention_reference",
    "block_linear",
    "block_linear_reference",
    "cache_format",
    "choose_blocks",
    "choose_key_blocks",
    "clamped_swiglu",
    "clamped_swiglu_reference",
    "combine_rows",
    "combine_rows_reference",
    "considered",
    "considered_keys",
    "expanded_attention",
    "expanded_attention_reference",
    "expands",
    "finalists",
    "group_by_expert",
    "group_by_expert_reference",
    "head_linear",
    "head_linear_reference",
    "latent_attention",
    "linear",
    "linear_reference",
    "paged_attention",
    "paged_attention_reference",
    "quantize_groups",
    "quantize_rows",
    "rms_norm",
    "rms_norm_reference",
    "rotate_and_cache",
    "route",
    "route_reference",
    "scaled_linear",
    "silu_mul",
    "silu_mul_reference",
    "take_rows",
    "turn_and_cache_latents",
    "watched_choices",
]
