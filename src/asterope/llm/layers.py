"""The parts of a model: weights of a layer, plain or quantized, and the KV cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch

from asterope.kernels import ExpertRows, silu_mul
from asterope.llm.config import ModelConfig
from asterope.llm.linears import Linear, PlainLinear
from asterope.llm.router import Router

__all__ = ["KVCache", "Layer", "Linear", "PlainLinear", "rope_tables"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Layer:
    """One decoder layer; projections that read the same input are stored as one.

    With a router the feed-forward part is that of experts: `gate_up` and `down` hold them one below
    another. A KV cache in fp8 holds keys and values divided by their scales.
    """

    attention_norm: torch.Tensor
    qkv: Linear
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    output: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear
    key_scale: float = 1.0
    value_scale: float = 1.0
    router: Router | None = None

    def feed_forward(self, x_MH: torch.Tensor) -> torch.Tensor:
        """Return what the MLP makes of each token, or its experts. Shapes: result [M, H]."""
        if self.router is None:
            return self._mlp(x_MH)
        return self.router.run(x_MH, self._mlp)

    def _mlp(self, x: torch.Tensor, experts: ExpertRows | None = None) -> torch.Tensor:
        gated = silu_mul(self.gate_up.apply(x, experts=experts))
        return self.down.apply(gated, experts=experts)

    def with_linears(self, change: Callable[[str, Linear], Linear]) -> Layer:
        """Return the layer with other linear layers: `change` gets the place and what is there."""
        return dataclasses.replace(
            self, qkv=change("qkv", self.qkv), output=change("output", self.output),
            gate_up=change("gate_up", self.gate_up), down=change("down", self.down),
        )  # fmt: skip


class KVCache:
    """Keys and values of each layer for a batch of sequences of one length.

    Shapes: keys[i] and values[i] are [B, Hkv, capacity, D].
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        capacity: int,
        dtype: torch.dtype,
        device: str = "cpu",
    ) -> None:
        shape = (batch, config.num_kv_heads, capacity, config.head_dim)
        self.capacity = capacity
        self.length = 0
        self.keys = [
            torch.empty(shape, dtype=dtype, device=device) for _ in range(config.num_layers)
        ]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in self.keys]

    @property
    def num_bytes(self) -> int:
        """Bytes of all layers."""
        return 2 * sum(k.numel() * k.element_size() for k in self.keys)


def rope_tables(
    config: ModelConfig, length: int, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosine and sine of every position and pair, float32.

    Shapes: [length, head_dim / 2] each.
    """
    if device == "meta":
        shape = (length, config.head_dim // 2)
        return torch.empty(shape, device=device), torch.empty(shape, device=device)
    frequencies = torch.tensor(
        config.rope.inverse_frequencies(config.head_dim), dtype=torch.float32
    )
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies[None, :]
    return angles.cos().to(device).contiguous(), angles.sin().to(device).contiguous()
