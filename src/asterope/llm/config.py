"""What a model is, from its Hugging Face config.json: Llama, Qwen2, Qwen3 and Mistral."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asterope.errors import CheckpointError

__all__ = ["FAMILIES", "ModelConfig", "Rope", "read_config"]

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rope:
    """Rotary embedding: base, and the scaling of long-context variants."""

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 0

    def inverse_frequencies(self, head_dim: int) -> list[float]:
        """Return the angle per position of each pair of dimensions, head_dim / 2 of them."""
        plain = [self.theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
        if self.kind == "linear":
            return [f / self.factor for f in plain]
        if self.kind == "llama3":
            return [self._llama3(f) for f in plain]
        return plain

    def _llama3(self, frequency: float) -> float:
        """Stretch long waves by the factor, keep short ones, and blend in between.

        Source: Llama 3.1's published inference code, as in transformers' `rope_utils`.
        """
        wavelength = 2 * math.pi / frequency
        if wavelength < self.original_context / self.high_freq_factor:
            return frequency
        if wavelength > self.original_context / self.low_freq_factor:
            return frequency / self.factor
        span = self.high_freq_factor - self.low_freq_factor
        smooth = (self.original_context / wavelength - self.low_freq_factor) / span
        return (1 - smooth) * frequency / self.factor + smooth * frequency


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A dense decoder of one of the families."""

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_context: int
    norm_eps: float
    rope: Rope
    tied_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    head_norms: bool
    windows: tuple[int | None, ...]
    dtype: str
    eos_ids: tuple[int, ...]
    bos_id: int | None

    @property
    def q_size(self) -> int:
        """Width of the query projection."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of the key projection, and of the value projection."""
        return self.num_kv_heads * self.head_dim

    def kv_bytes_per_token(self, element_bytes: int) -> int:
        """Bytes that one token adds to the KV cache."""
        return 2 * self.num_layers * self.kv_size * element_bytes

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, where: str) -> ModelConfig:
        """Read a config.json's content.

        Raises: CheckpointError naming the field that is missing, wrong or not supported.
        """
        return _Reader(raw, where).config()


class _Reader:
    """Reads fields with the checks that a good error needs."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw = raw
        self.where = where

    def fail(self, what: str, field: str, hint: str = "") -> CheckpointError:
        return CheckpointError(what, where=f"{self.where}: {field}", hint=hint)

    def size(self, field: str, default: int | None = None) -> int:
        value = self.raw.get(field)
        value = default if value is None else value
        if value is None:
            raise self.fail("is missing", field)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
            raise self.fail(f"{value!r} is not a positive whole number", field)
        return value

    def number(self, field: str, default: float) -> float:
        value = self.raw.get(field)
        value = default if value is None else value
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not math.isfinite(value)
        ):
            raise self.fail(f"{value!r} is not a number", field)
        return float(value)

    def flag(self, field: str, default: bool) -> bool:
        value = self.raw.get(field)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.fail(f"{value!r} is neither true nor false", field)
        return value

    def family(self) -> str:
        family = self.raw.get("model_type")
        names = self.raw.get("architectures") or [""]
        if family in FAMILIES and str(names[0]).endswith(("ForCausalLM", "")):
            return str(family)
        raise self.fail(
            f"architecture {names[0] or family!r} is not supported",
            "model_type",
            f"supported are dense models of type {', '.join(FAMILIES)}",
        )

    def rope(self) -> Rope:
        given = self.raw.get("rope_parameters") or self.raw.get("rope_scaling") or {}
        if not isinstance(given, Mapping):
            raise self.fail(f"{given!r} is not a table", "rope_parameters")
        kind = str(given.get("rope_type") or given.get("type") or "default")
        if kind not in ("default", "linear", "llama3"):
            raise self.fail(f"rope type {kind!r} is not supported", "rope_parameters.rope_type",
                            "supported are default, linear and llama3")  # fmt: skip
        theta = given.get("rope_theta") or self.raw.get("rope_theta") or 10000.0
        inner = _Reader(given, f"{self.where}: rope_parameters")
        return Rope(
            theta=float(theta),
            kind=kind,
            factor=inner.number("factor", 1.0),
            low_freq_factor=inner.number("low_freq_factor", 1.0),
            high_freq_factor=inner.number("high_freq_factor", 4.0),
            original_context=int(inner.number("original_max_position_embeddings", 0)),
        )

    def windows(self, family: str, layers: int) -> tuple[int | None, ...]:
        """Return each layer's sliding window, None for full attention."""
        window = self.raw.get("sliding_window")
        if not window:
            return (None,) * layers
        kinds = self.raw.get("layer_types")
        if kinds:
            return tuple(int(window) if k == "sliding_attention" else None for k in kinds)
        if family == "mistral":
            return (int(window),) * layers
        if not self.raw.get("use_sliding_window", False):
            return (None,) * layers
        first = int(self.raw.get("max_window_layers") or layers)
        return tuple(int(window) if i >= first else None for i in range(layers))

    def eos_ids(self) -> tuple[int, ...]:
        eos = self.raw.get("eos_token_id")
        if eos is None:
            return ()
        return tuple(eos) if isinstance(eos, list) else (int(eos),)

    def config(self) -> ModelConfig:
        family = self.family()
        hidden, heads, layers = (
            self.size(f) for f in ("hidden_size", "num_attention_heads", "num_hidden_layers")
        )
        kv_heads = self.size("num_key_value_heads", heads)
        if heads % kv_heads:
            raise self.fail(f"{kv_heads} does not divide {heads} heads", "num_key_value_heads")
        head_dim = self.size("head_dim", hidden // heads)
        if head_dim % 2:
            raise self.fail(f"{head_dim} is odd", "head_dim")
        activation = self.raw.get("hidden_act", "silu")
        if activation not in ("silu", "swish"):
            raise self.fail(f"{activation!r} is not supported", "hidden_act", "supported is silu")
        windows = self.windows(family, layers)
        if len(windows) != layers:
            raise self.fail(f"has {len(windows)} entries for {layers} layers", "layer_types")
        bias = self.flag("attention_bias", family == "qwen2")
        bos = self.raw.get("bos_token_id")
        return ModelConfig(
            family=family,
            vocab_size=self.size("vocab_size"),
            hidden_size=hidden,
            intermediate_size=self.size("intermediate_size"),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            max_context=self.size("max_position_embeddings", 2048),
            norm_eps=self.number("rms_norm_eps", 1e-6),
            rope=self.rope(),
            tied_embeddings=self.flag("tie_word_embeddings", False),
            qkv_bias=bias or family == "qwen2",
            output_bias=bias and family != "qwen2",
            mlp_bias=self.flag("mlp_bias", False),
            head_norms=family == "qwen3",
            windows=windows,
            dtype=str(self.raw.get("dtype") or self.raw.get("torch_dtype") or "float32"),
            eos_ids=self.eos_ids(),
            bos_id=int(bos) if isinstance(bos, int) else None,
        )


def read_config(directory: Path) -> dict[str, Any]:
    """Read config.json of a checkpoint directory.

    Raises: CheckpointError if there is no directory, no config.json, or no JSON object in it.
    """
    if not directory.is_dir():
        raise CheckpointError(
            "is not a directory",
            where=str(directory),
            hint="give a Hugging Face checkpoint directory",
        )
    path = directory / "config.json"
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(
            "there is no config.json", where=str(directory),
            hint="give a Hugging Face checkpoint: config.json, *.safetensors, tokenizer.json",
        ) from None  # fmt: skip
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(raw, dict):
        raise CheckpointError("holds no JSON object", where=str(path))
    return raw
