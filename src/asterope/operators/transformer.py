"""The shape of a decoder, the formats it is held in, how chips share it and how it is run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from asterope.errors import ConfigError
from asterope.operators.attention import Heads, LatentHeads

__all__ = ["Execution", "MixtureOfExperts", "Parallel", "Precision", "Transformer", "shared_heads"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureOfExperts:
    """Experts of each layer in place of one feed-forward part.

    `skew` and `random` are those of `expert_loads`; a router that nobody trained on the text at
    hand spreads tokens at random. `shared_intermediate` is the width of an expert that takes every
    token, 0 for none.
    """

    num_experts: int
    top_k: int
    intermediate_size: int
    skew: float = 0.0
    random: bool = True
    shared_intermediate: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Transformer:
    """The shape of a decoder whose layers are alike but for their window and their feed-forward.

    `windows` are how far the attention of a layer looks back, None for all the way, and repeat
    over the layers. With `moe` the first `dense_layers` have a feed-forward part of
    `intermediate_size` all the same. `head_norms` says that queries and keys are normalized.
    """

    hidden_size: int
    num_layers: int
    heads: Heads | LatentHeads
    vocab_size: int
    intermediate_size: int = 0
    moe: MixtureOfExperts | None = None
    dense_layers: int = 0
    windows: tuple[int | None, ...] = (None,)
    head_norms: bool = False

    def layers_by_window(self) -> Mapping[int | None, int]:
        """Count the layers of each window."""
        return Counter(self.windows[i % len(self.windows)] for i in range(self.num_layers))

    @property
    def num_moe_layers(self) -> int:
        """Count the layers with experts."""
        return 0 if self.moe is None else self.num_layers - self.dense_layers


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """The format that projections are multiplied in, and the bits of what they read.

    `moe_bits` are those of an expert's weight, `moe_a_bits` of what experts read, where they
    differ. `block_scaled` says that scales change along a row of weights, as in checkpoints with
    scales for blocks of 128 x 128. The head and the router stay in 16 bits.
    """

    rate: str = "bf16"
    a_bits: float = 16
    b_bits: float = 16
    moe_rate: str = ""
    moe_bits: float = 0
    moe_a_bits: float = 0
    block_scaled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Parallel:
    """How many chips share a layer: its heads and projections, and its experts."""

    tensor: int = 1
    expert: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """How a library runs a step; the defaults are those of vLLM and TensorRT-LLM today.

    `fused_norms`: the sum with the residual and the norm after it are one kernel.
    `fused_projections`: query, key and value are one product, gate and up another.
    `fused_rounding`: what comes before a product in 8 bits or fewer writes its input in them; else
    kernels of their own round it.
    `fused_head_norms`: norms of queries and keys are in the kernel that rotates them; else there
    are two more. `hidden_all_reduce`: the share of an
    all-reduce that runs under the product after it. `gap_s`: the pause between two kernels of a
    recorded step, beyond what `kernel_s` of the chip holds. `host_layer_s`: what the host takes to
    launch a layer of a step that reads prompts, which is not recorded as a graph; the step takes
    the longer of that and of its kernels.

    Source of `host_layer_s`: NVIDIA aiconfigurator at 095f58a5, vllm_backend.py, "~0.8ms/layer".
    """

    fused_norms: bool = True
    fused_projections: bool = True
    fused_rounding: bool = True
    fused_head_norms: bool = True
    hidden_all_reduce: float = 0.0
    gap_s: float = 0.0
    host_layer_s: float = 0.8e-3

    def __post_init__(self) -> None:
        """Refuse a share outside 0..1 and times below 0.

        Raises: ConfigError naming the field.
        """
        if not 0 <= self.hidden_all_reduce <= 1:
            raise ConfigError(f"{self.hidden_all_reduce} is no share", where="hidden_all_reduce")
        for name, seconds in (("gap_s", self.gap_s), ("host_layer_s", self.host_layer_s)):
            if not 0 <= seconds < math.inf:
                raise ConfigError(f"{seconds} is not a time", where=name)


def shared_heads(heads: Heads | LatentHeads, chips: int) -> Heads | LatentHeads:
    """Return one chip's heads; key and value heads are copied where chips are more.

    Raises: ConfigError if the heads cannot be shared out.
    """
    if chips < 1 or heads.query % chips:
        raise ConfigError(
            f"{heads.query} heads cannot be shared by {chips} chips", where="parallel.tensor"
        )
    if isinstance(heads, LatentHeads):
        return LatentHeads(
            query=heads.query // chips, latent=heads.latent, rope=heads.rope, nope=heads.nope,
            value=heads.value, cache_bits=heads.cache_bits, absorbed=heads.absorbed,
            query_latent=heads.query_latent,
        )  # fmt: skip
    return Heads(
        query=heads.query // chips, key_value=max(1, heads.key_value // chips), dim=heads.dim,
        tied=heads.tied,
        cache_bits=heads.cache_bits,
    )  # fmt: skip
