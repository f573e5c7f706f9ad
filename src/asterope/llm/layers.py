"""The parts of a model: weights of a layer, plain or quantized, and the KV cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from asterope.kernels import CacheFormat, CacheRows, ExpertRows, clamped_swiglu, silu_mul
from asterope.llm.config import Clamp, ModelConfig
from asterope.llm.latent import LatentParts
from asterope.llm.linears import Linear, PlainLinear
from asterope.llm.router import Router

__all__ = ["KVCache", "Layer", "Linear", "PlainLinear", "SharedExpert", "made_layer", "rope_tables"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SharedExpert:
    """An MLP beside a layer's experts, which sees all tokens."""

    gate_up: Linear
    down: Linear

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Return what it makes of each token. Shapes: x and result [M, H]."""
        return self.down.apply(silu_mul(self.gate_up.apply(x)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Layer:
    """One decoder layer; projections that read the same input are stored as one.

    With a router the feed-forward part is that of experts: `gate_up` and `down` hold them one below
    another, and `shared` sees all tokens besides. With `latent`, attention is over latent vectors,
    which `qkv` makes. A KV cache in fewer bits holds keys and values divided by their scales. With
    `sinks` each query head has a score more (`kernels.attention`), and `clamp` is that of the gate.
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
    shared: SharedExpert | None = None
    latent: LatentParts | None = None
    sinks: torch.Tensor | None = None
    clamp: Clamp | None = None

    def feed_forward(self, x_MH: torch.Tensor) -> torch.Tensor:
        """Return what the MLP makes of each token, or its experts. Shapes: result [M, H]."""
        if self.router is None:
            return self._mlp(x_MH)
        return self.router.run(x_MH, self._mlp, None if self.shared is None else self.shared.run)

    def _mlp(self, x: torch.Tensor, experts: ExpertRows | None = None) -> torch.Tensor:
        gated = self.gated(self.gate_up.apply(x, experts=experts))
        return self.down.apply(gated, experts=experts)

    def gated(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the down projection reads. Shapes: x [M, 2 I]; result [M, I]."""
        if self.clamp is None:
            return silu_mul(x)
        return clamped_swiglu(x, alpha=self.clamp.alpha, limit=self.clamp.limit)

    def with_linears(self, change: Callable[[str, Linear], Linear]) -> Layer:
        """Return the layer with other linear layers: `change` gets the place and what is there."""
        shared, latent = self.shared, self.latent
        if shared is not None:
            shared = SharedExpert(
                gate_up=change("shared_gate_up", shared.gate_up),
                down=change("shared_down", shared.down),
            )
        if latent is not None:
            latent = dataclasses.replace(latent, q_up=change("q_up", latent.q_up))
        return dataclasses.replace(
            self, qkv=change("qkv", self.qkv), output=change("output", self.output),
            gate_up=change("gate_up", self.gate_up), down=change("down", self.down),
            shared=shared, latent=latent,
        )  # fmt: skip

    @property
    def linears(self) -> dict[str, Linear]:
        """The linear layers by their places, but for the router's."""
        found = {
            "qkv": self.qkv, "output": self.output, "gate_up": self.gate_up, "down": self.down
        }  # fmt: skip
        if self.shared is not None:
            found |= {"shared_gate_up": self.shared.gate_up, "shared_down": self.shared.down}
        return found if self.latent is None else {**found, "q_up": self.latent.q_up}

    @property
    def named_vectors(self) -> dict[str, torch.Tensor | None]:
        """What the layer has besides, by name: norms, and weights that no format rounds."""
        found = {
            "attention_norm": self.attention_norm, "q_norm": self.q_norm, "k_norm": self.k_norm,
            "mlp_norm": self.mlp_norm, "sinks": self.sinks,
        }  # fmt: skip
        if self.router is not None:
            found["router_bias"] = self.router.bias
        if self.latent is not None:
            latent = self.latent
            found |= {
                "query_norm": latent.q_norm, "kv_norm": latent.kv_norm, "kv_up": latent.kv_up
            }  # fmt: skip
        return found

    @property
    def vectors(self) -> list[torch.Tensor]:
        """Those of them that are there."""
        return [each for each in self.named_vectors.values() if each is not None]


def made_layer(
    linears: Mapping[str, Linear], *, kv_norm: torch.Tensor | None = None,
    kv_up: torch.Tensor | None = None, query_norm: torch.Tensor | None = None, **rest: Any,
) -> Layer:  # fmt: skip
    """Return the layer that has linear layers in their places (`pieces.fused_pieces`)."""
    own: dict[str, Any] = {place: linears[place] for place in ("qkv", "output", "gate_up", "down")}
    shared, latent = None, None
    if "shared_down" in linears:
        shared = SharedExpert(gate_up=linears["shared_gate_up"], down=linears["shared_down"])
    if kv_norm is not None and kv_up is not None:
        latent = LatentParts(q_norm=query_norm, q_up=linears["q_up"], kv_norm=kv_norm, kv_up=kv_up)
    return Layer(shared=shared, latent=latent, **own, **rest)


class KVCache:
    """Keys and values of each layer for a batch of sequences of one length.

    They are computed in a type and stored in a format.

    Shapes: keys[i] and values[i] are [B, Hkv, capacity, D]; of attention over latents keys[i] are
    these with turned keys, [B, 1, capacity, L + rope], and values[i] have no elements.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        capacity: int,
        dtype: torch.dtype,
        fmt: CacheFormat,
        device: str = "cpu",
    ) -> None:
        shape = (batch, config.num_kv_heads, capacity, config.head_dim)
        latent = config.latent
        if latent is not None:
            shape = (batch, 1, capacity, latent.rank + latent.rope)
        self.capacity = capacity
        self.length = 0
        self.keys: list[CacheRows] = [
            fmt.empty(shape, dtype, device) for _ in range(config.num_layers)
        ]
        held = (*shape[:3], 0) if latent is not None else shape
        self.values: list[CacheRows] = [fmt.empty(held, dtype, device) for _ in self.keys]

    @property
    def num_bytes(self) -> int:
        """Bytes of all layers."""
        return sum(each.nbytes for each in (*self.keys, *self.values))


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
    cos, sin = (turned * config.rope.table_factor for turned in (angles.cos(), angles.sin()))
    return cos.to(device).contiguous(), sin.to(device).contiguous()
