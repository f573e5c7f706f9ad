"""A model of random weights: in bf16 for transformers, in any scheme for us."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

from asterope.llm import Linear, Model, PlainLinear, model_from_config
from asterope.quant import PLACES, QuantizedLinear, Scheme, quantize_weight

__all__ = ["TINY_LLAMA", "our_step", "random_layers", "random_model", "their_steps"]

TINY_LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000,
    "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
    "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "hidden_act": "silu",
}  # fmt: skip
"""The shape of TinyLlama, 1.1 billion weights."""

_TOKEN, _NUM_RANDOM = 17, 1 << 20


@functools.cache
def _numbers() -> torch.Tensor:
    return (torch.randn(_NUM_RANDOM) * 0.02).to(torch.bfloat16)


def _random(*shape: int) -> torch.Tensor:
    """Return a tensor of random numbers, the same again and again."""
    size = math.prod(shape)
    return _numbers().repeat(-(-size // _NUM_RANDOM))[:size].view(shape)


def random_layers(shape: tuple[int, int], scheme: Scheme, min_bytes: int) -> list[QuantizedLinear]:
    """Return equal layers [out, in] in memory of their own, at least two and so many bytes."""
    first = quantize_weight(_random(*shape), scheme, name="random")
    count = max(2, -(-min_bytes // first.num_bytes))
    return [_copied(first) for _ in range(count)]


def random_model(config: dict[str, Any], scheme: Scheme) -> Model:
    """Return a model with random weights; those of all layers are equal, but in other memory."""
    shapes = model_from_config(config)
    first = shapes.layers[0]
    made: dict[str, Linear] = {}
    for place in PLACES:
        linear = getattr(first, place)
        made[place] = quantize_weight(_random(*linear.weight.shape), scheme, name=place)
    ones = torch.ones(shapes.config.hidden_size, dtype=torch.bfloat16)
    layers = []
    for _ in shapes.layers:
        parts: dict[str, Any] = {place: _copied(linear) for place, linear in made.items()}
        layers.append(
            dataclasses.replace(first, attention_norm=ones, mlp_norm=ones.clone(), **parts)
        )
    head = PlainLinear(_random(*shapes.embedding.shape))
    return dataclasses.replace(
        shapes, embedding=_random(*shapes.embedding.shape), layers=layers, norm=ones, head=head
    )


def _copied(value: Any) -> Any:
    """Return a linear layer with tensors of its own."""
    fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    tensors = {name: x.clone() for name, x in fields if isinstance(x, torch.Tensor)}
    return dataclasses.replace(value, **tensors)


def our_step(model: Model, context: int) -> Callable[[], object]:
    """Return a decode step of one token after so many, which leaves the cache as it was."""
    cache = model.new_cache(1, context + 1)
    for tensor in (*cache.keys, *cache.values):
        tensor.normal_()
    token = torch.tensor([[_TOKEN]])

    @torch.inference_mode()
    def step() -> object:
        cache.length = context
        return int(model.forward(token, cache, last_only=True)[0, -1].argmax())

    return step


def their_steps(config: dict[str, Any], context: int) -> dict[str, Callable[[], object]]:
    """Return decode steps of transformers in bf16, by what a careful user may choose.

    Each leaves its cache as long as it was.
    """
    made = LlamaConfig(**{k: v for k, v in config.items() if k != "torch_dtype"})
    with torch.device("meta"):
        model = LlamaForCausalLM(made)
    model = model.to(torch.bfloat16).to_empty(device="cpu").eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.ones(()) if weight.dim() == 1 else _random(*weight.shape))
        model.model.rotary_emb.__init__(made)  # what to_empty has emptied
    token, prompt = torch.tensor([[_TOKEN]]), torch.full((1, context), _TOKEN)
    grown = DynamicCache(config=made)
    fixed = StaticCache(config=made, max_cache_len=context + 1)
    with torch.inference_mode():
        for cache in (grown, fixed):
            model(prompt, past_key_values=cache, logits_to_keep=1)

    @torch.inference_mode()
    def dynamic() -> object:
        logits = model(token, past_key_values=grown, logits_to_keep=1).logits
        grown.crop(-1)
        return int(logits[0, -1].argmax())

    position = torch.tensor([context])

    @torch.inference_mode()
    def static() -> object:
        for layer in fixed.layers:
            layer.cumulative_length.fill_(context)
        logits = model(
            token, past_key_values=fixed, position_ids=position[None], logits_to_keep=1
        ).logits
        return int(logits[0, -1].argmax())

    return {"dynamic cache": dynamic, "static cache": static}
