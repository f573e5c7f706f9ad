"""Build a model from a checkpoint directory, or from a configuration alone."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from asterope.errors import CheckpointError, ConfigError, UnsupportedError
from asterope.kernels import Routing, cache_format
from asterope.llm.cache import check_scale, with_scales
from asterope.llm.config import ModelConfig, read_config
from asterope.llm.layers import Layer, Linear, PlainLinear, made_layer
from asterope.llm.lazy_layers import LazyLayers
from asterope.llm.model import Model
from asterope.llm.pieces import (
    KV_UP,
    Piece,
    fused_pieces,
    module_names,
    routers,
    scheme_place,
)
from asterope.llm.router import Router
from asterope.llm.tensors import TensorFiles, open_tensors
from asterope.quant import (
    Layout,
    Mix,
    Plan,
    QuantizedLinear,
    Scheme,
    common_amax,
    concatenate,
    mix_of,
    quantization_of,
    quantize_weight,
    read_layout,
    stack,
)

__all__ = ["load_model", "model_from_config", "read_checkpoint_config", "stored_layout"]

Progress = Callable[[int, int], None]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def compute_dtype(name: str | None, config: ModelConfig) -> torch.dtype:
    """Return the type of activations: the one asked for, else the checkpoint's.

    Raises: ConfigError for a type that models do not compute in.
    """
    chosen = name or (config.dtype if config.dtype in _DTYPES else "bfloat16")
    if chosen not in _DTYPES:
        raise ConfigError(
            f"{chosen!r} is not supported", where="dtype", hint=f"use {', '.join(_DTYPES)}"
        )
    return _DTYPES[chosen]


def read_checkpoint_config(directory: Path) -> dict[str, Any]:
    """Read config.json, and as its `quantization_config` what tools write in a file beside it.

    Raises: CheckpointError as `read_config`, and for a file beside it that cannot be read.
    """
    raw = read_config(directory)
    stored = quantization_of(raw, directory)
    return raw if stored is None else {**raw, "quantization_config": stored}


def load_model(
    directory: str | Path,
    *,
    scheme: Plan | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
    lazily: bool = False,
) -> Model:
    """Load a Hugging Face checkpoint; with a scheme or mix, quantize what it reads.

    A checkpoint that is already quantized, by a tool of `quant.readers`, loads as it is.
    `progress(done, total)` is called after each layer. `lazily` leaves each layer in the files
    until it is asked for, and reads, checks and quantizes it each time that it is.

    Raises: CheckpointError naming the file, field or tensor that is missing or wrong.
    """
    path = Path(directory)
    raw = read_checkpoint_config(path)
    where = str(path / "config.json")
    layout = stored_layout(raw, where=where)
    config = ModelConfig.from_dict(raw, where=where)
    with open_tensors(path) as files:
        source = _Checkpoint(files, config, compute_dtype(dtype, config), scheme, layout)
        model = source.lazy_model() if lazily else source.model(progress)
    model.name = path.name
    return model


def stored_layout(raw: Mapping[str, Any], *, where: str) -> Layout | None:
    """Return how a checkpoint is quantized by its config.json's content, None for an original.

    Latent vectors stay in the type of activations, whatever it says of keys and values.

    Raises: as the readers of `quant.readers` do, then as `ModelConfig.from_dict`.
    """
    stored = raw.get("quantization_config")
    if not stored:
        return None
    layout = read_layout(stored)
    latent = ModelConfig.from_dict(raw, where=where).latent
    return layout if latent is None else layout.without_cache()


class _Checkpoint:
    """Reads the weights of one model out of its files."""

    def __init__(
        self, files: TensorFiles, config: ModelConfig, dtype: torch.dtype, plan: Plan | None,
        layout: Layout | None,
    ) -> None:  # fmt: skip
        self.files, self.config, self.dtype = files, config, dtype
        self.layout = layout
        if layout is not None:
            found = layout.plan(config.num_layers, module_names(config))
            if plan is not None and plan != found:
                raise ConfigError(
                    f"the checkpoint is already quantized ({found.describe()})",
                    where=str(files.directory),
                    hint="quantize the original, or leave the format out",
                )
            plan = found
        self.mix: Mix = mix_of(plan, config.num_layers)

    def model(self, progress: Progress | None) -> Model:
        layers = []
        for i in range(self.config.num_layers):
            layers.append(self._layer(i))
            if progress:
                progress(i + 1, self.config.num_layers)
        return self._around(layers)

    def lazy_model(self) -> Model:
        """Return a model whose layers are read when they are asked for."""
        return self._around(LazyLayers(self.config.num_layers, self._read_layer, self.mix.simplest))

    def _read_layer(self, index: int) -> Layer:
        """Read a layer from files that are opened for it: what is mapped goes when it does."""
        with open_tensors(self.files.directory) as files:
            source = copy.copy(self)
            source.files = files
            return source._layer(index)

    def _around(self, layers: Sequence[Layer]) -> Model:
        """Return the model that has those layers."""
        config, files = self.config, self.files
        embedding = files.get(
            "model.embed_tokens.weight", (config.vocab_size, config.hidden_size), self.dtype
        )
        norm = files.get("model.norm.weight", (config.hidden_size,), self.dtype)
        head = PlainLinear(embedding)
        if not config.tied_embeddings:
            shape = (config.vocab_size, config.hidden_size)
            head = PlainLinear(files.get("lm_head.weight", shape, self.dtype))
        model = Model(config, embedding, layers, norm, head, self.dtype)
        model.scheme = model.plan.describe() if model.plan else ""
        if self.layout is None or self.layout.cache_format == "auto":
            return model
        fmt, scales = cache_format(self.layout.cache_format), [(1.0, 1.0)] * config.num_layers
        if fmt.largest is not None:
            scales = [self._cache_scales(i, self.layout) for i in range(config.num_layers)]
        return with_scales(model, fmt, scales)

    def _cache_scales(self, index: int, layout: Layout) -> tuple[float, float]:
        names = (f"model.layers.{index}.self_attn.{name}" for name in layout.cache_scales)
        keys, values = (self._scale(name, layout.missing_scale) for name in names)
        return keys, values

    def _scale(self, name: str, usual: float | None) -> float:
        if usual is not None and name not in self.files:
            return usual
        return check_scale(self.files.raw(name), name)

    def _layer(self, index: int) -> Layer:
        prefix = f"model.layers.{index}"
        width = (self.config.hidden_size,)
        norms: dict[str, torch.Tensor | None] = {"q_norm": None, "k_norm": None}
        for name, size in zip(norms, self.config.norm_sizes or (), strict=False):
            norms[name] = self.files.get(f"{prefix}.self_attn.{name}.weight", (size,), self.dtype)
        config, schemes = self.config.at(index), self.mix.of(index)
        parts: dict[str, Any] = {
            place: self._projection(prefix, units, schemes[scheme_place(place)])
            for place, units in fused_pieces(config).items()
        }
        return made_layer(
            parts,
            router=self._router(prefix, config),
            attention_norm=self.files.get(f"{prefix}.input_layernorm.weight", width, self.dtype),
            mlp_norm=self.files.get(f"{prefix}.post_attention_layernorm.weight", width, self.dtype),
            q_norm=norms["q_norm"],
            k_norm=norms["k_norm"],
            sinks=self._sinks(prefix),
            clamp=config.clamp,
            **self._latent_norms(prefix),
        )

    def _sinks(self, prefix: str) -> torch.Tensor | None:
        if not self.config.has_sinks:
            return None
        return self.files.get(f"{prefix}.self_attn.sinks", (self.config.num_heads,), self.dtype)

    def _latent_norms(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the norms of latents, and the weight that makes keys and values of them."""
        latent, found = self.config.latent, dict[str, torch.Tensor]()
        if latent is None:
            return found
        norms = {"kv_norm": ("kv_a_layernorm", latent.rank)}
        if latent.query_rank:
            norms["query_norm"] = ("q_a_layernorm", latent.query_rank)
        for key, (name, size) in norms.items():
            found[key] = self.files.get(f"{prefix}.self_attn.{name}.weight", (size,), self.dtype)
        name, rows = f"{prefix}.{KV_UP}", self.config.num_heads * latent.head_size
        linear = self._linear(name, rows, latent.rank, False, None, None)
        if isinstance(linear, QuantizedLinear):
            found["kv_up"] = linear.dequantize().to(self.dtype)
        else:
            assert isinstance(linear, PlainLinear)
            found["kv_up"] = linear.weight
        return found

    def _router(self, prefix: str, config: ModelConfig) -> Router | None:
        experts = config.experts
        if experts is None:
            return None
        parts, bias, added = [], None, None
        for name, rows in routers(config).items():
            stored = f"{prefix}.{name}.weight"
            parts.append(self.files.get(stored, (rows, config.hidden_size), self.dtype))
        if experts.is_corrected:
            stored = f"{prefix}.{next(iter(routers(config)))}.e_score_correction_bias"
            bias = self.files.get(stored, (experts.count,), torch.float32)
        if experts.has_bias:
            stored = f"{prefix}.{next(iter(routers(config)))}.bias"
            added = self.files.get(stored, (experts.count,), self.dtype)
        return _router(config, torch.cat(parts) if len(parts) > 1 else parts[0], bias, added)

    def _projection(
        self, prefix: str, units: tuple[tuple[Piece, ...], ...], scheme: Scheme | None
    ) -> Linear:
        quantized: list[QuantizedLinear] = []
        plain: list[PlainLinear] = []
        for unit in units:
            amax = self._common_amax(prefix, unit, scheme)
            linears = [
                self._linear(f"{prefix}.{name}", n, k, bias, scheme, amax)
                for name, n, k, bias in unit
            ]
            parts = [x for x in linears if isinstance(x, QuantizedLinear)]
            plain += [x for x in linears if isinstance(x, PlainLinear)]
            quantized += [concatenate(parts)] if len(parts) > 1 else parts
        if not plain:
            return stack(quantized) if len(quantized) > 1 else quantized[0]
        if len(plain) == 1 and not quantized:
            return plain[0]
        if quantized:
            names = [name for unit in units for name, *_ in unit]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UnsupportedError(
                "some of the projections that are run as one are quantized, and some are not",
                where=f"{prefix}: {', '.join(names[:3])}{more}",
                hint="quantize all of them or none",
            )
        biases = [x.bias for x in plain if x.bias is not None]
        return PlainLinear(
            torch.cat([x.weight for x in plain]), torch.cat(biases) if biases else None
        )

    def _common_amax(
        self, prefix: str, unit: tuple[Piece, ...], scheme: Scheme | None
    ) -> float | None:
        """Return the largest magnitude of projections that engines fuse, where a scale needs it."""
        if self.layout is not None or scheme is None or len(unit) == 1:
            return None
        weights = (self.files.get(f"{prefix}.{name}.weight", (n, k)) for name, n, k, _ in unit)
        return common_amax(weights, scheme)

    def _linear(
        self, name: str, n: int, k: int, has_bias: bool, scheme: Scheme | None, amax: float | None
    ) -> Linear:
        bias = self.files.get(f"{name}.bias", (n,), self.dtype) if has_bias else None
        if self.layout is not None:
            own = self.files.below(name)
            if not self.layout.is_kept(name, own):
                return dataclasses.replace(self._stored_linear(name, own, n, k), bias=bias)
            scheme = None
        if scheme is None:
            return PlainLinear(self.files.get(f"{name}.weight", (n, k), self.dtype), bias)
        weight = self.files.get(f"{name}.weight", (n, k))
        return quantize_weight(weight, scheme, name=name, bias=bias, amax=amax)

    def _stored_linear(self, name: str, own: Sequence[str], n: int, k: int) -> QuantizedLinear:
        assert self.layout is not None
        tensors = {full: self.files.raw(full) for full in own}
        layer = self.layout.layer(name, tensors, self.files.metadata)
        found = [layer.out_features, layer.in_features]
        if found != [n, k]:
            raise CheckpointError(
                f"the weight of {name} has shape {found}, config.json asks for {[n, k]}",
                where=str(self.files.directory),
            )
        return layer


def _router(
    config: ModelConfig, weight: torch.Tensor, bias: torch.Tensor | None,
    added: torch.Tensor | None,
) -> Router:  # fmt: skip
    """Return the router of a layer with experts; DeepSeek's families score in float32.

    `bias` corrects the choice, and `added` is that of the product.
    """
    experts = config.experts
    assert experts is not None
    linear = PlainLinear(weight, added, out_dtype=torch.float32 if config.latent else None)
    routing = Routing(
        top_k=experts.top_k, normalized=experts.normalized, scoring=experts.scoring,
        groups=experts.groups, top_groups=experts.top_groups, scale=experts.scale,
    )  # fmt: skip
    return Router(linear=linear, num_experts=experts.count, routing=routing, bias=bias)


def model_from_config(
    raw: Mapping[str, Any],
    *,
    scheme: Plan | None = None,
    dtype: str | None = None,
    name: str = "",
) -> Model:
    """Build a model that has shapes but no weights: it can be timed and priced, not run.

    Layers that are quantized alike are one and the same.

    Raises: CheckpointError for a configuration that is not supported.
    """
    config = ModelConfig.from_dict(raw, where=name or "config")
    kind = compute_dtype(dtype, config)

    def meta(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=kind, device="meta")

    def projection(units: tuple[tuple[Piece, ...], ...], scheme: Scheme | None) -> Linear:
        rows, (_, _, k, has_bias) = sum(n for unit in units for _, n, _, _ in unit), units[0][0]
        if scheme is not None:
            return QuantizedLinear.empty(
                rows, k, scheme, device="meta", bias=has_bias, dtype=kind, experts=len(units)
            )
        return PlainLinear(meta(rows, k), meta(rows) if has_bias else None)

    def layer(schemes: Mapping[str, Scheme | None], config: ModelConfig) -> Layer:
        q_norm, k_norm = map(meta, config.norm_sizes) if config.norm_sizes else (None, None)
        experts, router = config.experts, None
        if experts is not None:
            bias = None
            if experts.is_corrected:
                bias = torch.empty(experts.count, dtype=torch.float32, device="meta")
            rows = sum(routers(config).values())
            added = meta(rows) if experts.has_bias else None
            router = _router(config, meta(rows, config.hidden_size), bias, added)
        return made_layer(
            {
                place: projection(units, schemes[scheme_place(place)])
                for place, units in fused_pieces(config).items()
            },
            attention_norm=meta(config.hidden_size), mlp_norm=meta(config.hidden_size),
            sinks=meta(config.num_heads) if config.has_sinks else None, clamp=config.clamp,
            q_norm=q_norm, k_norm=k_norm, router=router, **latent_weights(config),
        )  # fmt: skip

    def latent_weights(config: ModelConfig) -> dict[str, torch.Tensor]:
        latent = config.latent
        if latent is None:
            return {}
        found = {
            "kv_norm": meta(latent.rank),
            "kv_up": meta(config.num_heads * latent.head_size, latent.rank),
        }
        return {**found, "query_norm": meta(latent.query_rank)} if latent.query_rank else found

    embedding = meta(config.vocab_size, config.hidden_size)
    tied = config.tied_embeddings
    head = PlainLinear(embedding if tied else meta(config.vocab_size, config.hidden_size))
    mix = mix_of(scheme, config.num_layers)
    kinds = [(row, config.at(i)) for i, row in enumerate(mix.layers)]
    made = {
        (row, kind): layer(mix.of(mix.layers.index(row)), kind)
        for row, kind in dict.fromkeys(kinds)
    }
    layers = [made[each] for each in kinds]
    described = scheme.describe() if scheme else ""
    return Model(config, embedding, layers, meta(config.hidden_size), head, kind, name, described)
