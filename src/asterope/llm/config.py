"""What a model is, from its Hugging Face config.json: Llama, Qwen, Mistral and Mixtral."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asterope.errors import CheckpointError

__all__ = ["FAMILIES", "ExpertsConfig", "ModelConfig", "Rope", "read_config"]

FAMILIES = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe")
ROPES = ("default", "linear", "llama3")


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
class ExpertsConfig:
    """How many experts each layer has, how many see a token, and whether their shares add up to 1.

    All experts are alike; none is shared by all tokens.
    """

    count: int
    top_k: int
    normalized: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A decoder of one of the families; with experts `intermediate_size` is that of one."""

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
    experts: ExpertsConfig | None = None

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
        return _Reader(raw=raw, where=f"{where}: ").config()


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a field may hold, and what is said of a value that it may not."""

    accepts: Callable[[Any], bool]
    complaint: str


def _whole(low: int, high: int) -> _Kind:
    return _Kind(
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
        f"is not a whole number from {low} to {high}",
    )


def _list_of(item: _Kind, what: str) -> _Kind:
    return _Kind(
        lambda v: isinstance(v, list) and all(item.accepts(each) for each in v),
        f"is not a list of {what}",
    )


def _one_of(*values: str) -> _Kind:
    return _Kind(lambda v: isinstance(v, str) and v in values, "is not supported")


_LAYERS = _whole(1, 10_000)
_HEADS = _whole(1, 2**16)
_EXPERTS = _whole(1, 2**12)
_SIZE = _whole(1, 2**24)
_CONTEXT = _whole(1, 2**31 - 1)
_TOKEN = _whole(0, 2**24)
_POSITIVE = _Kind(
    # Beyond these float32, in which models compute, has zero and infinity.
    lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and 1e-30 < v < 1e30,
    "is not a number above 0",
)
_FLAG = _Kind(lambda v: isinstance(v, bool), "is neither true nor false")
_NAME = _Kind(lambda v: isinstance(v, str), "is not a name")
_TABLE = _Kind(lambda v: isinstance(v, Mapping), "is not a table")
_LAYER_KINDS = ("full_attention", "sliding_attention")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reader:
    """Reads fields of a table, each by the kind of value that it may hold."""

    raw: Mapping[str, Any]
    where: str

    def fail(self, what: str, field: str, hint: str = "") -> CheckpointError:
        return CheckpointError(what, where=f"{self.where}{field}", hint=hint)

    def get(self, field: str, kind: _Kind, default: Any = None, *, hint: str = "") -> Any:
        """Return a field, or the default where it is absent or null.

        Raises: CheckpointError for a value of another kind; if there is no default, for none.
        """
        value = self.raw.get(field)
        value = default if value is None else value
        if value is None:
            raise self.fail("is missing", field)
        if not kind.accepts(value):
            raise self.fail(f"{reprlib.repr(value)} {kind.complaint}", field, hint)
        return value

    def has(self, field: str) -> bool:
        return self.raw.get(field) is not None

    def family(self) -> str:
        hint = f"supported are causal models of type {', '.join(FAMILIES)}"
        names = self.get("architectures", _list_of(_NAME, "names"), [])
        named = f" ({reprlib.repr(names[0])})" if names else ""
        family = self.raw.get("model_type")
        if family not in FAMILIES:
            what = f"architecture {reprlib.repr(family)}{named} is not supported"
            raise self.fail(what, "model_type", hint)
        if names and not names[0].endswith("ForCausalLM"):
            raise self.fail(f"{reprlib.repr(names[0])} is not supported", "architectures", hint)
        return str(family)

    def rope(self) -> Rope:
        """Read the rotary embedding, in the spelling of transformers 5 or the older one."""
        field = "rope_parameters" if self.has("rope_parameters") else "rope_scaling"
        given = self.get(field, _TABLE, {})
        inner = _Reader(raw=given, where=f"{self.where}{field}.")
        key = "rope_type" if inner.has("rope_type") else "type"
        kind = inner.get(key, _one_of(*ROPES), "default", hint=f"supported are {', '.join(ROPES)}")
        for reader in (self, inner):
            if reader.get("partial_rotary_factor", _POSITIVE, 1.0) != 1:
                what = f"{reader.raw['partial_rotary_factor']} is not supported"
                raise reader.fail(what, "partial_rotary_factor", "only whole heads are rotated")
        theta = (inner if inner.has("rope_theta") else self).get("rope_theta", _POSITIVE, 1e4)
        if kind == "default":
            return Rope(theta=float(theta))
        if kind == "linear":
            return Rope(theta=float(theta), kind=kind, factor=float(inner.get("factor", _POSITIVE)))
        context = inner.get("original_max_position_embeddings", _CONTEXT)
        low, high = (inner.get(f"{end}_freq_factor", _POSITIVE) for end in ("low", "high"))
        if low >= high:
            raise inner.fail(f"{low} is not below high_freq_factor {high}", "low_freq_factor")
        return Rope(
            theta=float(theta), kind=kind, factor=float(inner.get("factor", _POSITIVE)),
            low_freq_factor=float(low), high_freq_factor=float(high), original_context=context,
        )  # fmt: skip

    def windows(self, family: str, layers: int) -> tuple[int | None, ...]:
        """Return each layer's sliding window, None for full attention."""
        kinds = self.get("layer_types", _list_of(_one_of(*_LAYER_KINDS), " or ".join(_LAYER_KINDS)),
                         [])  # fmt: skip
        if self.has("layer_types") and len(kinds) != layers:
            raise self.fail(f"has {len(kinds)} entries for {layers} layers", "layer_types")
        chosen = self.get("use_sliding_window", _FLAG, bool(kinds))
        if family == "llama" or not self.has("sliding_window"):
            return (None,) * layers
        window = self.get("sliding_window", _CONTEXT)
        if family in ("mistral", "mixtral"):
            return (window,) * layers
        if not chosen:
            return (None,) * layers
        if family == "qwen3_moe":
            return (window,) * layers
        if kinds:
            return tuple(window if k == "sliding_attention" else None for k in kinds)
        first = self.get("max_window_layers", _whole(0, 2**31 - 1), 28)
        return tuple(window if i >= first else None for i in range(layers))

    def eos_ids(self) -> tuple[int, ...]:
        if isinstance(self.raw.get("eos_token_id"), list):
            return tuple(self.get("eos_token_id", _list_of(_TOKEN, "token ids")))
        return (self.get("eos_token_id", _TOKEN),) if self.has("eos_token_id") else ()

    def heads(self, hidden: int) -> tuple[int, int, int]:
        """Return the heads of queries, those of keys, and the width of each."""
        heads = self.get("num_attention_heads", _HEADS)
        kv_heads = self.get("num_key_value_heads", _HEADS, heads)
        if heads % kv_heads:
            raise self.fail(f"{kv_heads} does not divide {heads} heads", "num_key_value_heads")
        if not self.has("head_dim") and hidden % heads:
            raise self.fail(f"{heads} heads do not divide {hidden}", "num_attention_heads")
        head_dim = self.get("head_dim", _HEADS, hidden // heads)
        if head_dim % 2:
            raise self.fail(f"{head_dim} is odd", "head_dim")
        return heads, kv_heads, head_dim

    def experts(self, family: str, layers: int) -> ExpertsConfig | None:
        """Read the mixture of experts, None for a dense model; all layers must have one."""
        if family not in ("mixtral", "qwen3_moe"):
            return None
        field = "num_experts" if self.has("num_experts") else "num_local_experts"
        count, top_k = self.get(field, _EXPERTS), self.get("num_experts_per_tok", _EXPERTS)
        if top_k > count:
            raise self.fail(f"{top_k} is above {field} {count}", "num_experts_per_tok")
        dense = self.get("mlp_only_layers", _list_of(_whole(0, 10_000), "layers"), [])
        if (
            any(layer < layers for layer in dense)
            or self.get("decoder_sparse_step", _LAYERS, 1) > 1
        ):
            name = "mlp_only_layers" if dense else "decoder_sparse_step"
            what = f"{reprlib.repr(self.raw[name])} is not supported"
            raise self.fail(what, name, "all layers have experts, or none has")
        normalized = family == "mixtral" or self.get("norm_topk_prob", _FLAG, False)
        return ExpertsConfig(count=count, top_k=top_k, normalized=normalized)

    def config(self) -> ModelConfig:
        family = self.family()
        hidden, layers = self.get("hidden_size", _SIZE), self.get("num_hidden_layers", _LAYERS)
        heads, kv_heads, head_dim = self.heads(hidden)
        self.get("hidden_act", _one_of("silu", "swish"), "silu", hint="supported is silu")
        bias = self.get("attention_bias", _FLAG, False)
        dtype = "dtype" if self.has("dtype") else "torch_dtype"
        return ModelConfig(
            family=family,
            vocab_size=self.get("vocab_size", _SIZE),
            hidden_size=hidden,
            intermediate_size=self.get(
                "moe_intermediate_size" if family == "qwen3_moe" else "intermediate_size", _SIZE
            ),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            max_context=self.get("max_position_embeddings", _CONTEXT, 2048),
            norm_eps=float(self.get("rms_norm_eps", _POSITIVE, 1e-6)),
            rope=self.rope(),
            tied_embeddings=self.get("tie_word_embeddings", _FLAG, False),
            qkv_bias=bias or family == "qwen2",
            output_bias=bias and family != "qwen2",
            mlp_bias=self.get("mlp_bias", _FLAG, False),
            head_norms=family in ("qwen3", "qwen3_moe"),
            windows=self.windows(family, layers),
            dtype=self.get(dtype, _NAME, "float32"),
            eos_ids=self.eos_ids(),
            bos_id=self.get("bos_token_id", _TOKEN) if self.has("bos_token_id") else None,
            experts=self.experts(family, layers),
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
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            "there is no config.json", where=str(directory),
            hint="give a Hugging Face checkpoint: config.json, *.safetensors, tokenizer.json",
        ) from None  # fmt: skip
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(raw, dict):
        raise CheckpointError("holds no JSON object", where=str(path))
    return raw
