"""Write the model that `train_stdlib_model.py` made, measure it as written, and describe it."""

from __future__ import annotations

import json
import math
import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from safetensors.torch import save_file
from tokenizers import Tokenizer

from stdlib_corpus import BOS

SAMPLE_PROMPT = "class Queue:\n    def __init__(self, maxsize=0):\n"
CARD = """---
license: apache-2.0
tags: [code, python, llama]
---
# stdlib-llama

A Llama-architecture language model of {held_out[parameters]:,} parameters that writes Python in
the manner of the standard library. It exists so that there is a real model at hand whose loss of
quality under quantization can be measured and repaired in minutes. It is no coding assistant.

| | |
|---|---|
| Shape | {plan[num_layers]} layers, hidden {plan[hidden_size]}, MLP {plan[intermediate_size]}, \
{plan[num_heads]} query and {plan[num_kv_heads]} key-value heads, tied embedding |
| Tokenizer | byte-level BPE of {plan[vocab_size]} entries, trained on the same text |
| Context | {plan[context]} tokens |
| Weights | bf16 |
| **Held-out perplexity** | **{held_out[perplexity]:.3f} per token, \
{held_out[bits_per_byte]:.4f} bits per byte** |

## How it was made

    {command}

- Text: the `.py` files of the standard library of Python {corpus[python]}, without tests,
  installed packages and generated tables (`encodings`, `pydoc_data`): {corpus[train_files]}
  modules, {corpus[train_bytes]:,} bytes, {corpus[train_tokens]:,} tokens. SHA-256 of all names
  and texts, held-out ones included: `{corpus[sha256]}`.
- Training: {plan[steps]} steps, {run[tokens]:,} tokens in all ({epochs:.1f} epochs), matmuls in
  {plan[dtype]}, master weights in float32; Muon (peak rate {plan[muon_lr]}) for the matrices of
  the layers, AdamW ({plan[adamw_lr]}) for the rest; seed {plan[seed]}. The smoothed training loss
  ended at {run[loss]:.3f}.
- Hardware: {run[threads]} threads of {run[cpu]}, torch {run[torch]}. {minutes:.1f} minutes of
  wall time ({speed:,.0f} tokens/s), {core_minutes:.1f} minutes of CPU time per thread.

The same command on the same CPU, torch, Python and number of threads gives the same weights;
elsewhere it gives a model as good, not the same one.

## Held-out modules

{corpus[held_out_bytes]:,} bytes, {held_out[tokens]:,} tokens that took no part in training;
{corpus[overlap]:.1%} of their lines of 24 characters or more also occur in the training text.
Measured with `transformers` in float32 from the shipped weights: windows of {plan[context]} tokens
that advance by half, every token after the first of a module counted once; perplexity is exp of
the mean loss.

| module | perplexity |
|---|--:|
{table}

## A sample

Drawn at temperature 0.7 with seed {plan[seed]}; the first two lines are the prompt.

```python
{held_out[sample]}
```

## Limits and licence

It knows one kind of text. What it writes looks like Python and is mostly wrong; it can repeat
short passages of its training text. The weights are under Apache-2.0. The training text is part
of Python, copyright Python Software Foundation, under the PSF License Version 2; this folder
holds none of it.
"""


def write_checkpoint(
    out: Path, plan: dict[str, Any], weights: dict[str, torch.Tensor], tokenizer: Tokenizer
) -> None:
    """Write a Hugging Face directory: bf16 weights, configuration, tokenizer."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": plan["vocab_size"],
        "hidden_size": plan["hidden_size"],
        "intermediate_size": plan["intermediate_size"],
        "num_hidden_layers": plan["num_layers"],
        "num_attention_heads": plan["num_heads"],
        "num_key_value_heads": plan["num_kv_heads"],
        "head_dim": plan["hidden_size"] // plan["num_heads"],
        "max_position_embeddings": plan["context"],
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": BOS,
        "model_max_length": plan["context"],
        "clean_up_tokenization_spaces": False,
    }
    out.mkdir(parents=True, exist_ok=True)
    bf16 = {name: weight.detach().bfloat16() for name, weight in weights.items()}
    save_file(bf16, out / "model.safetensors", {"format": "pt"})
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (out / "tokenizer_config.json").write_text(
        json.dumps(tokenizer_config, indent=2) + "\n", "utf-8"
    )


def score(model: Any, ids: list[int]) -> float:
    """Return the summed negative log-likelihood, in nats, of all tokens after the first.

    Windows of the model's context advance by half of it, and a token counts in the first window
    that predicts it: past the first window, each has at least half a context before it.
    """
    context: int = model.config.max_position_embeddings
    total, scored = 0.0, 0
    while scored < len(ids) - 1:
        start = max(0, scored - context // 2)
        window = torch.tensor(ids[start : start + context + 1])
        losses = F.cross_entropy(model(window[None, :-1]).logits[0], window[1:], reduction="none")
        total += float(losses[scored - start :].double().sum())
        scored = start + len(window) - 1
    return total


def measure(out: Path, held_out: dict[str, str], seed: int) -> dict[str, Any]:
    """Score the held-out modules and draw a sample with the model as written, in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    nats, tokens, size_bytes, per_module = 0.0, 0, 0, {}
    torch.manual_seed(seed)
    with torch.inference_mode():
        for name, text in held_out.items():
            ids = tokenizer(text, verbose=False)["input_ids"]
            module_nats = score(model, ids)
            per_module[name] = math.exp(module_nats / (len(ids) - 1))
            nats, tokens = nats + module_nats, tokens + len(ids) - 1
            size_bytes += len(text.encode())
        prompt = tokenizer(SAMPLE_PROMPT, return_tensors="pt")
        drawn = model.generate(
            prompt["input_ids"],
            attention_mask=prompt["attention_mask"],
            max_new_tokens=min(160, model.config.max_position_embeddings // 2),
            do_sample=True,
            temperature=0.7,
            top_k=0,
            pad_token_id=0,
        )
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "tokens": tokens,
        "perplexity": math.exp(nats / tokens),
        "bits_per_byte": nats / math.log(2) / size_bytes,
        "perplexity_per_module": per_module,
        "sample": tokenizer.decode(drawn[0], skip_special_tokens=True),
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def write_card(out: Path, facts: dict[str, Any]) -> None:
    """Write `training.json` and `README.md` from the same facts."""
    run = facts["run"]
    modules = facts["held_out"]["perplexity_per_module"].items()
    card = CARD.format(
        **facts,
        minutes=run["wall_s"] / 60,
        core_minutes=run["cpu_s"] / 60 / run["threads"],
        epochs=run["tokens"] / facts["corpus"]["train_tokens"],
        speed=run["tokens"] / run["wall_s"],
        table="\n".join(f"| `{name}` | {perplexity:.2f} |" for name, perplexity in modules),
    )
    (out / "training.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    (out / "README.md").write_text(card, "utf-8")
