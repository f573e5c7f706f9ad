"""What a model is, from its Hugging Face config.json."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asterope.errors import CheckpointError
from asterope.llm.experts_config import ALIKE, DEEPSEEK, ExpertsConfig, read_experts
from asterope.llm.fields import (
    CONTEXT,
    FLAG,
    HEADS,
    LAYERS,
    NAME,
    POSITIVE,
    SIZE,
    TABLE,
    TOKEN,
    Fields,
    list_of,
    one_of,
    whole,
)
from asterope.llm.rope import ROPES, Rope

__all__ = [
    "FAMILIES",
    "Clamp",
    "ExpertsConfig",
    "LatentConfig",
    "ModelConfig",
    "Rope",
    "read_config",
]

FAMILIES = (
    "deepseek_v2", "deepseek_v3", "gpt_oss", "kimi_k2", "llama", "mistral", "mixtral", "olmoe",
    "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentConfig:
    """Attention over latent vectors of `rank` (MLA), and the parts of a head.

    Queries are made of a latent of `query_rank`, or without one where that is 0. Of a head's query
    and key `nope` elements know no position and `rope` do, `pairs` of neighbours turned together.
    """

    rank: int
    query_rank: int
    nope: int
    rope: int
    value: int
    pairs: bool

    @property
    def head_size(self) -> int:
        """Elements of a head's key and value that are made of a latent."""
        return self.nope + self.value


@dataclass(frozen=True, kw_only=True, slots=True)
class Clamp:
    """The clamped gate of gpt-oss (`kernels.clamped_swiglu`)."""

    alpha: float
    limit: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A decoder of one of the families; with experts `intermediate_size` is that of one.

    Queries and keys have norms over `norm_sizes` elements: those of a head, or of all heads.
    """

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
    norm_sizes: tuple[int, int] | None
    windows: tuple[int | None, ...]
    dtype: str
    eos_ids: tuple[int, ...]
    bos_id: int | None
    experts: ExpertsConfig | None = None
    latent: LatentConfig | None = None
    clamp: Clamp | None = None
    has_sinks: bool = False

    @property
    def q_size(self) -> int:
        """Width of the query projection; over latents, of what attention gives."""
        return self.num_heads * (self.latent.value if self.latent else self.head_dim)

    @property
    def kv_size(self) -> int:
        """Width of the key projection, and of the value projection."""
        return self.num_kv_heads * self.head_dim

    @property
    def cache_size(self) -> int:
        """Elements that a token adds to the KV cache of one layer."""
        return self.latent.rank + self.latent.rope if self.latent else 2 * self.kv_size

    @property
    def score_scale(self) -> float:
        """What products of queries and keys are multiplied by."""
        if self.latent is None:
            return float(self.head_dim**-0.5)
        return float((self.latent.nope + self.latent.rope) ** -0.5 * self.rope.score_factor)

    def kv_bytes_per_token(self, element_bytes: float) -> int:
        """Bytes that one token adds to the KV cache."""
        return round(self.num_layers * self.cache_size * element_bytes)

    def at(self, layer: int) -> ModelConfig:
        """Return the configuration as that of a model whose layers are all like one of these."""
        if self.experts is None or layer not in self.experts.dense_layers:
            return self
        return replace(self, experts=None, intermediate_size=self.experts.dense_size)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, where: str) -> ModelConfig:
        """Read a config.json's content.

        Raises: CheckpointError naming the field that is missing, wrong or not supported.
        """
        return _Reader(raw=raw, where=f"{where}: ").config()


_LAYER_KINDS = ("full_attention", "sliding_attention")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reader(Fields):
    """Reads the fields of a config.json."""

    def family(self) -> str:
        hint = f"supported are causal models of type {', '.join(FAMILIES)}"
        names = self.get("architectures", list_of(NAME, "names"), [])
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
        given = self.get(field, TABLE, {})
        inner = _Reader(raw=given, where=f"{self.where}{field}.")
        key = "rope_type" if inner.has("rope_type") else "type"
        kind = inner.get(key, one_of(*ROPES), "default", hint=f"supported are {', '.join(ROPES)}")
        for reader in (self, inner):
            if reader.get("partial_rotary_factor", POSITIVE, 1.0) != 1:
                what = f"{reader.raw['partial_rotary_factor']} is not supported"
                raise reader.fail(what, "partial_rotary_factor", "only whole heads are rotated")
        theta = (inner if inner.has("rope_theta") else self).get("rope_theta", POSITIVE, 1e4)
        if kind == "default":
            return Rope(theta=float(theta))
        if kind == "linear":
            return Rope(theta=float(theta), kind=kind, factor=float(inner.get("factor", POSITIVE)))
        context = inner.get("original_max_position_embeddings", CONTEXT)
        if kind == "yarn":
            return inner.yarn(float(theta), context)
        low, high = (inner.get(f"{end}_freq_factor", POSITIVE) for end in ("low", "high"))
        if low >= high:
            raise inner.fail(f"{low} is not below high_freq_factor {high}", "low_freq_factor")
        return Rope(
            theta=float(theta), kind=kind, factor=float(inner.get("factor", POSITIVE)),
            low_freq_factor=float(low), high_freq_factor=float(high), original_context=context,
        )  # fmt: skip

    def yarn(self, theta: float, context: int) -> Rope:
        """Read the rest of a table of YaRN."""
        given: dict[str, float] = {
            name: float(self.get(name, POSITIVE))
            for name in ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
            if self.raw.get(name)  # 0 is none
        }
        if theta <= 1:
            raise self.fail(f"{theta} is not above 1", "rope_theta")
        return Rope(
            theta=theta, kind="yarn", factor=float(self.get("factor", POSITIVE)),
            original_context=context, truncate=self.get("truncate", FLAG, True), **given,
        )  # fmt: skip

    def windows(self, family: str, layers: int) -> tuple[int | None, ...]:
        """Return each layer's sliding window, None for full attention."""
        kinds = self.get("layer_types", list_of(one_of(*_LAYER_KINDS), " or ".join(_LAYER_KINDS)),
                         [])  # fmt: skip
        if self.has("layer_types") and len(kinds) != layers:
            raise self.fail(f"has {len(kinds)} entries for {layers} layers", "layer_types")
        if family == "gpt_oss" and not kinds:
            kinds = [_LAYER_KINDS[1 - i % 2] for i in range(layers)]
        chosen = self.get("use_sliding_window", FLAG, bool(kinds))
        if family in ("llama", "olmoe", *DEEPSEEK) or not self.has("sliding_window"):
            return (None,) * layers
        if family in ("mistral", "mixtral"):
            return (self.get("sliding_window", CONTEXT),) * layers
        if not chosen:
            return (None,) * layers
        window = self.get("sliding_window", CONTEXT)
        if family == "qwen3_moe":
            return (window,) * layers
        if kinds:
            return tuple(window if k == "sliding_attention" else None for k in kinds)
        first = self.get("max_window_layers", whole(0, 2**31 - 1), 28)
        if family == "qwen2_moe":  # as transformers has it: every other one of the first
            return tuple(None if i % 2 or i >= first else window for i in range(layers))
        return tuple(window if i >= first else None for i in range(layers))

    def eos_ids(self) -> tuple[int, ...]:
        if isinstance(self.raw.get("eos_token_id"), list):
            return tuple(self.get("eos_token_id", list_of(TOKEN, "token ids")))
        return (self.get("eos_token_id", TOKEN),) if self.has("eos_token_id") else ()

    def heads(self, hidden: int) -> tuple[int, int, int]:
        """Return the heads of queries, those of keys, and the width of each."""
        heads = self.get("num_attention_heads", HEADS)
        if "kv_lora_rank" in self.raw:
            return heads, 1, self.get("qk_rope_head_dim", HEADS)
        kv_heads = self.get("num_key_value_heads", HEADS, heads)
        if heads % kv_heads:
            raise self.fail(f"{kv_heads} does not divide {heads} heads", "num_key_value_heads")
        if not self.has("head_dim") and hidden % heads:
            raise self.fail(f"{heads} heads do not divide {hidden}", "num_attention_heads")
        head_dim = self.get("head_dim", HEADS, hidden // heads)
        if head_dim % 2:
            raise self.fail(f"{head_dim} is odd", "head_dim")
        return heads, kv_heads, head_dim

    def clamp(self) -> Clamp:
        """Read the gate of gpt-oss."""
        return Clamp(
            alpha=float(self.get("swiglu_alpha", POSITIVE, 1.702)),
            limit=float(self.get("swiglu_limit", POSITIVE, 7.0)),
        )

    def qkv_bias(self, family: str) -> bool:
        """Return whether queries, keys and values of a family have biases, said or not."""
        if family == "qwen2_moe":
            return bool(self.get("qkv_bias", FLAG, True))
        return family == "qwen2"

    def latent(self, family: str) -> LatentConfig | None:
        """Read the sizes of attention over latents, None where a family has none."""
        if family not in DEEPSEEK:
            return None
        rope, query = self.get("qk_rope_head_dim", HEADS), 0
        if rope % 2:
            raise self.fail(f"{rope} is odd", "qk_rope_head_dim")
        if self.has("q_lora_rank"):
            query = self.get("q_lora_rank", SIZE)
        pairs = self.get("rope_interleave", FLAG, True)
        if family == "deepseek_v2" and not pairs:
            raise self.fail("false is not supported", "rope_interleave")
        return LatentConfig(
            rank=self.get("kv_lora_rank", SIZE), query_rank=query, rope=rope, pairs=pairs,
            nope=self.get("qk_nope_head_dim", HEADS), value=self.get("v_head_dim", HEADS),
        )  # fmt: skip

    def config(self) -> ModelConfig:
        family = self.family()
        hidden, layers = self.get("hidden_size", SIZE), self.get("num_hidden_layers", LAYERS)
        heads, kv_heads, head_dim = self.heads(hidden)
        self.get("hidden_act", one_of("silu", "swish"), "silu", hint="supported is silu")
        is_gpt_oss = family == "gpt_oss"
        bias = self.get("attention_bias", FLAG, is_gpt_oss)
        dtype = "dtype" if self.has("dtype") else "torch_dtype"
        experts, latent = read_experts(self, family, layers), self.latent(family)
        own_size = experts is not None and family not in ALIKE
        if self.has("clip_qkv"):
            raise self.fail(f"{reprlib.repr(self.raw['clip_qkv'])} is not supported", "clip_qkv")
        norms = None
        if family in ("qwen3", "qwen3_moe"):
            norms = (head_dim, head_dim)
        elif family == "olmoe":
            norms = (heads * head_dim, kv_heads * head_dim)
        return ModelConfig(
            family=family,
            vocab_size=self.get("vocab_size", SIZE),
            hidden_size=hidden,
            intermediate_size=self.get(
                "moe_intermediate_size" if own_size else "intermediate_size", SIZE
            ),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            max_context=self.get("max_position_embeddings", CONTEXT, 2048),
            norm_eps=float(self.get("rms_norm_eps", POSITIVE, 1e-6)),
            rope=self.rope(),
            tied_embeddings=self.get("tie_word_embeddings", FLAG, False),
            qkv_bias=self.qkv_bias(family) or bias,
            output_bias=bias and family not in ("qwen2", "qwen2_moe"),
            mlp_bias=is_gpt_oss or self.get("mlp_bias", FLAG, False),
            norm_sizes=norms,
            windows=self.windows(family, layers),
            dtype=self.get(dtype, NAME, "bfloat16" if is_gpt_oss else "float32"),
            eos_ids=self.eos_ids(),
            bos_id=self.get("bos_token_id", TOKEN) if self.has("bos_token_id") else None,
            experts=experts,
            latent=latent,
            clamp=self.clamp() if is_gpt_oss else None,
            has_sinks=is_gpt_oss,
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
