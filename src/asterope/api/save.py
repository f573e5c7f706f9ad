"""Write a checkpoint whole or not at all: beside its place, read back, compared, then renamed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from asterope.api.source import Source
from asterope.api.staging import staged
from asterope.api.tensor_writer import TensorWriter, digest
from asterope.errors import OutputError, UnsupportedError
from asterope.llm import (
    KV_UP,
    KeptLayers,
    Layer,
    Linear,
    Model,
    ModelConfig,
    PlainLinear,
    load_model,
    module_names,
    projections,
    routers,
)
from asterope.quant import (
    CACHE_SCALES,
    Plan,
    QuantizedLinear,
    Scheme,
    is_nvfp4_svd,
    kv_cache_scheme,
    nvfp4_svd_config,
    nvfp4_svd_tensors,
    plan_config,
    read_layout,
    split,
    to_tensors,
)
from asterope.report import check_directory

__all__ = ["check_target", "save_checkpoint"]

Progress = Callable[[int, int], None]
_Stored = Callable[[str, QuantizedLinear], dict[str, torch.Tensor]]

_HEAD = "lm_head"
_INPUT_SCALES = ("input_scale", "input_global_scale")
_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def save_checkpoint(
    model: Model,
    source: Source,
    scheme: Plan | None,
    directory: Path,
    progress: Progress | None = None,
    kept_in: Path | None = None,
) -> Path:
    """Write config.json, model.safetensors and the tokenizer's files; return the directory.

    One layer after another is asked for, written, and forgotten. Layers that were kept in
    `kept_in` while they were made are deleted before it gets its name. `progress(done, total)`
    counts layers that are written, then read back.

    Raises: UnsupportedError for a quantized KV cache beside unquantized weights; OutputError if the
    directory holds something or cannot be written, or what was read
    back is not what was written; then nothing is left behind.
    """
    check_target(directory)
    if scheme is None and model.cache_format.name != "auto":
        raise UnsupportedError(
            f"has a KV cache in {model.cache_format.name} beside unquantized weights, which no "
            "checkpoint stores",
            where=model.name or "model", hint="quantize the weights too, to fp8 or fewer bits",
        )  # fmt: skip
    directory = directory.expanduser().absolute()
    try:
        with staged(directory) as staging:
            digests = _write(staging, model, source, scheme, progress)
            _compare(staging, model.config, digests, scheme, progress)
            if kept_in is not None:
                KeptLayers.remove(kept_in)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"cannot write: {reason}", where=str(directory)) from None
    return directory


def check_target(directory: Path) -> None:
    """Check that a checkpoint can be written to a directory: it is new or empty, and not read-only.

    Raises: OutputError naming it.
    """
    check_directory(directory)
    place = directory.expanduser()
    if place.exists() and any(place.iterdir()):
        raise OutputError(
            "is there already and not empty", where=str(directory), hint="choose another directory"
        )


def _write(
    staging: Path, model: Model, source: Source, scheme: Plan | None, progress: Progress | None
) -> dict[str, bytes]:
    """Write all files; return the digest of each tensor."""
    writer = TensorWriter(staging / "model.safetensors")
    total = 2 * model.config.num_layers
    stored = _stored_by(model, scheme)
    for name, tensor in _tensors(model, stored, lambda done: progress and progress(done, total)):
        writer.add(name, tensor)
    writer.close()
    stored_names = (name.rpartition(".") for name in writer.digests)
    static = {module for module, _, what in stored_names if what in _INPUT_SCALES}
    config = _config(model, source, scheme, static_inputs=static)
    (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in _COPIED:
        if source.directory is not None and (source.directory / name).is_file():
            shutil.copyfile(source.directory / name, staging / name)
    return writer.digests


def _config(
    model: Model, source: Source, scheme: Plan | None, *, static_inputs: set[str]
) -> dict[str, Any]:
    config = {k: v for k, v in source.config.items() if k not in ("quantization_config", "dtype")}
    config["torch_dtype"] = str(model.dtype).removeprefix("torch.")
    if scheme is not None:
        ignore = [_HEAD, *(f"re:.*{re.escape(name)}$" for name in routers(model.config))]
        if model.config.latent is not None:
            ignore.append(f"re:.*{re.escape(KV_UP)}$")
        if isinstance(scheme, Scheme) and _stored_by(model, scheme) is nvfp4_svd_tensors:
            return config | {"quantization_config": nvfp4_svd_config(scheme, ignore)}
        config["quantization_config"] = plan_config(
            scheme, ignore, static_inputs=static_inputs,
            names=module_names(model.config),
        )  # fmt: skip
        config["quantization_config"]["kv_cache_scheme"] = kv_cache_scheme(model.cache_format)
    return config


def _stored_by(model: Model, scheme: Plan | None) -> _Stored:
    """Return what gives the tensors of a layer; Model Optimizer's layout has no KV cache."""
    is_svd = is_nvfp4_svd(scheme) and model.cache_format.name == "auto"
    return nvfp4_svd_tensors if is_svd else to_tensors


def _tensors(
    model: Model, stored: _Stored, progress: Callable[[int], object]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a checkpoint under their Hugging Face names, layer by layer."""
    yield "model.embed_tokens.weight", model.embedding
    for index, layer in enumerate(model.layers):
        prefix = f"model.layers.{index}"
        yield f"{prefix}.input_layernorm.weight", layer.attention_norm
        yield f"{prefix}.post_attention_layernorm.weight", layer.mlp_norm
        for name, vector in _attention_tensors(layer).items():
            yield f"{prefix}.self_attn.{name}.weight", vector
        if layer.sinks is not None:
            yield f"{prefix}.self_attn.sinks", layer.sinks
        if layer.router is not None:
            parts = {f"{prefix}.{name}": rows for name, rows in routers(model.config).items()}
            sizes = list(parts.values())
            yield from _linear_tensors(layer.router.linear, list(parts), sizes, stored)
            if layer.router.bias is not None:
                yield f"{next(iter(parts))}.e_score_correction_bias", layer.router.bias
        if model.cache_format.largest is not None:
            for name, scale in zip(CACHE_SCALES, (layer.key_scale, layer.value_scale), strict=True):
                yield f"{prefix}.self_attn.{name}", torch.tensor([scale])
        for place, pieces in projections(model.config.at(index)).items():
            names = [f"{prefix}.{name}" for name, _, _, _ in pieces]
            sizes = [rows for _, rows, _, _ in pieces]
            yield from _linear_tensors(layer.linears[place], names, sizes, stored)
        progress(index + 1)
    yield "model.norm.weight", model.norm
    if not model.config.tied_embeddings:
        yield from _linear_tensors(model.head, [_HEAD], [model.config.vocab_size], stored)


def _attention_tensors(layer: Layer) -> dict[str, torch.Tensor]:
    """Return the norms in a layer's attention, and what makes keys and values of latents."""
    found = {"q_norm": layer.q_norm, "k_norm": layer.k_norm}
    if layer.latent is not None:
        found["q_a_layernorm"], found["kv_a_layernorm"] = layer.latent.q_norm, layer.latent.kv_norm
        found[KV_UP.rpartition(".")[2]] = layer.latent.kv_up
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _linear_tensors(
    linear: Linear, names: list[str], sizes: list[int], stored: _Stored
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a layer, each projection that is fused into it by itself."""
    if isinstance(linear, QuantizedLinear):
        for name, part in zip(names, split(linear, sizes), strict=True):
            yield from stored(name, part).items()
        return
    assert isinstance(linear, PlainLinear)
    for name, weight in zip(names, torch.split(linear.weight, sizes), strict=True):
        yield f"{name}.weight", weight.contiguous()
    if linear.bias is not None:
        for name, bias in zip(names, torch.split(linear.bias, sizes), strict=True):
            yield f"{name}.bias", bias.contiguous()


def _compare(
    staging: Path, config: ModelConfig, digests: Mapping[str, bytes], scheme: Plan | None,
    progress: Progress | None,
) -> None:  # fmt: skip
    """Load what was written and compare it with what was meant, bit for bit."""
    stored = json.loads((staging / "config.json").read_text(encoding="utf-8"))
    recorded = stored.get("quantization_config")
    names, num_layers = module_names(config), config.num_layers
    read_scheme = read_layout(recorded).plan(num_layers, names) if recorded else None
    again = load_model(staging, lazily=True)
    done, total = num_layers, 2 * num_layers
    stored_by = _stored_by(again, read_scheme)
    tensors = _tensors(again, stored_by, lambda read: progress and progress(done + read, total))
    read = {name: digest(tensor) for name, tensor in tensors}
    different = sorted(name for name, _ in digests.items() ^ read.items())
    if different or read_scheme != scheme:
        what = f"tensor {different[0]}" if different else "the scheme"
        raise OutputError(
            f"{what} does not read back as it was written", where="model.safetensors",
            hint="the disk may be faulty; nothing was kept",
        )  # fmt: skip
