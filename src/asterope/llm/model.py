"""A decoder that runs on compiled kernels: every product, norm, rotation and attention.

Shapes: B sequences, T new tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from asterope.errors import ConfigError
from asterope.kernels import (
    CACHE_FORMATS,
    CacheFormat,
    CacheRows,
    attention,
    rms_norm,
    rotate_and_cache,
)
from asterope.llm.config import ModelConfig
from asterope.llm.layers import KVCache, Layer, Linear, PlainLinear, rope_tables
from asterope.llm.lazy_layers import LazyLayers
from asterope.llm.router import ExpertLoads
from asterope.quant import PLACES, Mix, Plan

__all__ = ["Model"]


@dataclass(eq=False)
class Model:
    """Weights and the forward pass. `dtype` is that of activations.

    `cache_format` is that of the KV cache. `few_tokens` names experts that
    calibration saw too few tokens of, with their number.
    """

    config: ModelConfig
    embedding: torch.Tensor
    layers: Sequence[Layer]
    norm: torch.Tensor
    head: Linear
    dtype: torch.dtype
    name: str = ""
    scheme: str = ""
    cache_format: CacheFormat = CACHE_FORMATS["auto"]
    few_tokens: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def is_lazy(self) -> bool:
        """Whether layers are made when they are asked for."""
        return isinstance(self.layers, LazyLayers)

    @property
    def device(self) -> str:
        """`cpu`, or `meta` for a model that only has shapes."""
        return str(self.embedding.device.type)

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Return an empty KV cache.

        Raises: ConfigError if the capacity exceeds the model's context.
        """
        if not 0 < capacity <= self.config.max_context:
            raise ConfigError(
                f"{capacity} tokens are outside 1..{self.config.max_context}",
                where="context",
                hint="the limit is max_position_embeddings of config.json",
            )
        return KVCache(self.config, batch, capacity, self.dtype, self.cache_format, self.device)

    @property
    def kv_bits(self) -> float:
        """Bits of an element of the KV cache, with its part of a scale."""
        return self.cache_format.bits(self.dtype)

    def check_tokens(self, tokens: Sequence[int], *, where: str) -> None:
        """Check that the embedding has every token.

        Raises: ConfigError naming the first that it has not.
        """
        limit = self.config.vocab_size
        for token in tokens:
            if not 0 <= token < limit:
                raise ConfigError(
                    f"token {token} is outside 0..{limit - 1}", where=where,
                    hint="the text was made into tokens for another model",
                )  # fmt: skip

    def forward(
        self,
        tokens: torch.Tensor,
        cache: KVCache,
        *,
        last_only: bool = False,
        between_layers: Callable[[], object] = lambda: None,
    ) -> torch.Tensor:
        """Append tokens to the cache and return the logits after each of them, or after the last.

        `between_layers` is called before each layer and after the last.

        Shapes: tokens [B, T]; result [B, T, V] or [B, 1, V], float32.
        Raises: ConfigError if the cache is too short.
        """
        batch, count = tokens.shape
        if cache.length + count > cache.capacity:
            raise ConfigError(
                f"{cache.length} + {count} tokens exceed the cache's {cache.capacity}",
                where="context",
            )
        out_MH = self._layers(self.embed(tokens.reshape(-1)), cache, between_layers)
        cache.length += count
        if last_only:
            out_MH = out_MH.view(batch, count, -1)[:, -1].contiguous()
        logits = self.head.apply(out_MH).float()
        return logits.view(batch, -1, self.config.vocab_size)

    def finish(self, residual_MH: torch.Tensor, branch_MH: torch.Tensor | None) -> torch.Tensor:
        """Return the logits behind the last layer, whose addition `branch` is; see `run_layer`.

        Shapes: result [M, V], float32.
        """
        return self.head.apply(self._norm(branch_MH, residual_MH, self.norm)).float()

    def embed(self, tokens_M: torch.Tensor) -> torch.Tensor:
        """Return what the first layer's residual is. Shapes: result [M, H]."""
        if self.device == "meta":  # torch would first load a third of a second of symbolic algebra
            shape = (len(tokens_M), self.embedding.shape[1])
            return torch.empty(shape, dtype=self.dtype, device="meta")
        return torch.nn.functional.embedding(tokens_M, self.embedding).to(self.dtype).contiguous()

    def _layers(
        self, x_MH: torch.Tensor, cache: KVCache, between_layers: Callable[[], object]
    ) -> torch.Tensor:
        """Run all layers and the final norm; each norm adds what came before it to the residual."""
        residual, branch = x_MH, None
        for i, layer in enumerate(self.layers):
            between_layers()
            branch = self.run_layer(
                i, layer, residual, branch, cache.keys[i], cache.values[i], past=cache.length
            )
        between_layers()
        return self._norm(branch, residual, self.norm)

    def run_layer(
        self, index: int, layer: Layer, residual_MH: torch.Tensor, branch_MH: torch.Tensor | None,
        keys: CacheRows, values: CacheRows, *, past: int,
    ) -> torch.Tensor:  # fmt: skip
        """Run a layer in the place of the one with that index; return what it adds.

        `branch` is what the layer before adds; it and half of this layer's are added to the
        residual here, in place. Keys and values are one layer's of a cache with `past` tokens.

        Shapes: M = B x T; keys and values [B, Hkv, capacity, D]; result [M, H].
        """
        normal = self._norm(branch_MH, residual_MH, layer.attention_norm)
        mixed = self._attend(index, layer, normal, keys, values, past)
        normal = self._norm(layer.output.apply(mixed), residual_MH, layer.mlp_norm)
        return layer.feed_forward(normal)

    def _attend(
        self, index: int, layer: Layer, normal: torch.Tensor, keys: CacheRows, values: CacheRows,
        past: int,
    ) -> torch.Tensor:  # fmt: skip
        config, tables = self.config, self._rope(keys.shape[2])
        made = layer.qkv.apply(normal)
        if layer.latent is not None:
            assert isinstance(keys, torch.Tensor)  # `with_cache` refuses others
            return layer.latent.attend(config, normal, made, keys[:, 0], tables, past=past)
        q_norm, k_norm = layer.q_norm, layer.k_norm
        if config.norm_sizes and config.norm_sizes[0] != config.head_dim:  # over all heads
            self._norm_heads(made, layer)
            q_norm, k_norm = None, None
        q = rotate_and_cache(
            made, keys, values, *tables, q_heads=config.num_heads, past=past,
            q_norm=q_norm, k_norm=k_norm, eps=config.norm_eps,
            key_scale=layer.key_scale, value_scale=layer.value_scale,
        )  # fmt: skip
        return attention(
            q, keys, values, past=past, scale=config.score_scale, window=config.windows[index],
            key_scale=layer.key_scale, value_scale=layer.value_scale, sinks=layer.sinks,
        )  # fmt: skip

    def _norm_heads(self, made: torch.Tensor, layer: Layer) -> None:
        """Normalise queries, and keys behind them, each over all heads, in place."""
        config = self.config
        q, k = made[:, : config.q_size], made[:, config.q_size :][:, : config.kv_size]
        for x, weight in ((q, layer.q_norm), (k, layer.k_norm)):
            assert weight is not None
            rms_norm(x, weight, config.norm_eps, out=x)

    def _norm(
        self, branch: torch.Tensor | None, residual: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        if branch is None:
            return rms_norm(residual, weight, self.config.norm_eps)
        return rms_norm(branch, weight, self.config.norm_eps, residual)

    def _rope(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self._tables is None or self._tables[0].shape[0] < length:
            self._tables = rope_tables(self.config, length, self.device)
        return self._tables

    @property
    def plan(self) -> Plan | None:
        """How the linear layers are quantized, None if none is."""
        if isinstance(self.layers, LazyLayers):
            return self.layers.plan
        rows = []
        for layer in self.layers:
            linears = (getattr(layer, place) for place in PLACES)
            rows.append(tuple(getattr(linear, "scheme", None) for linear in linears))
        return Mix(tuple(rows)).simplest

    def with_expert_loads(self, loads: ExpertLoads, tokens: int = 0) -> Model:
        """Return the model with another assumption on where tokens go, for what times it.

        `tokens` are those of all chips, where several share the experts.
        """
        changed: dict[int, Layer] = {}  # shapes share one layer: so do these
        for layer in self.layers:
            router = layer.router
            if router is not None:
                share = router.share and dataclasses.replace(router.share, tokens=tokens)
                router = dataclasses.replace(router, loads=loads, share=share)
            changed.setdefault(id(layer), dataclasses.replace(layer, router=router))
        return dataclasses.replace(self, layers=[changed[id(layer)] for layer in self.layers])

    @property
    def described(self) -> str:
        """What is quantized, in words; empty if nothing is."""
        if self.cache_format.name == "auto":
            return self.scheme
        return f"{self.scheme or 'unquantized'}, {self.cache_format.name} KV cache"

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights in memory, a tied embedding once."""
        total = self.embedding.numel() * self.embedding.element_size()
        total += sum(linear.num_bytes for layer in self.layers for linear in layer.linears.values())
        routers = (layer.router for layer in self.layers if layer.router is not None)
        total += sum(router.linear.num_bytes for router in routers)
        rest = [self.norm, *(each for layer in self.layers for each in layer.vectors)]
        total += sum(each.numel() * each.element_size() for each in rest)
        return total if self.config.tied_embeddings else total + self.head.num_bytes

    def on_meta(self) -> Model:
        """Return a model of the same shapes without memory, which can be timed."""
        if self.device == "meta":
            return self

        def meta(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else torch.empty_like(tensor, device="meta")

        def bare(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return meta(value)
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                kept = {f.name: bare(getattr(value, f.name)) for f in dataclasses.fields(value)}
                return dataclasses.replace(value, **kept)
            return value

        layers = [bare(layer) for layer in self.layers]
        embedding = bare(self.embedding)
        tied = isinstance(self.head, PlainLinear) and self.head.weight is self.embedding
        head = PlainLinear(embedding) if tied else bare(self.head)
        return Model(
            self.config,
            embedding,
            layers,
            bare(self.norm),
            head,
            self.dtype,
            self.name,
            self.scheme,
            self.cache_format,
        )
