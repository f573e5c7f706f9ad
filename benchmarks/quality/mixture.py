"""Make a small mixture of experts out of a dense checkpoint, and train it.

Run it as `python -m benchmarks.quality.mixture OUT`, then quantize OUT. Each layer's MLP becomes
several experts of a Mixtral: copies of it with noise, and a router that knows nothing. As shares
of a token add up to 1, the mixture computes what the dense model does, but for the noise. Training
on the sources of Python's library then makes the experts differ, and the router choose.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file

from asterope import api

_PARTS = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
_CONFIG = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}


def mixture_of(
    tensors: dict[str, torch.Tensor], *, num_experts: int, noise: float, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return a dense model's tensors with experts in place of each MLP.

    `noise` is a share of each weight's standard deviation.
    """
    drawn = torch.Generator().manual_seed(seed)
    made = {}
    for name, tensor in tensors.items():
        layer, is_mlp, part = name.partition(".mlp.")
        if not is_mlp:
            made[name] = tensor
            continue
        own = _PARTS[part.removesuffix(".weight")]
        for expert in range(num_experts):
            random = torch.randn(tensor.shape, generator=drawn) * tensor.float().std() * noise
            key = f"{layer}.block_sparse_moe.experts.{expert}.{own}.weight"
            made[key] = (tensor.float() + random).to(tensor.dtype)
        if own == "w1":
            router = 0.02 * torch.randn((num_experts, tensor.shape[1]), generator=drawn)
            made[f"{layer}.block_sparse_moe.gate.weight"] = router.to(tensor.dtype)
    return made


def train(directory: Path, windows: torch.Tensor, *, batch: int, rate: float) -> float:
    """Train a checkpoint on windows, each once; return the loss of the last tenth of steps."""
    from transformers import MixtralForCausalLM

    model = MixtralForCausalLM.from_pretrained(directory, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95))
    steps = list(windows.split(batch))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=len(steps), pct_start=0.1
    )
    losses = []
    for part in track(steps, "training", console=Console(stderr=True)):
        loss = model(input_ids=part, labels=part, output_router_logits=True).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(float(loss.detach()))
    model.to(torch.bfloat16).save_pretrained(directory)
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def main(  # noqa: PLR0913, PLR0917 - a command takes as many options as it takes
    out: Annotated[Path, typer.Argument(help="Directory to write.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint; the shipped model.")] = None,
    experts: Annotated[int, typer.Option(min=2, help="Experts of a layer.")] = 4,
    top_k: Annotated[int, typer.Option(min=1, help="Experts of a token.")] = 2,
    noise: Annotated[float, typer.Option(min=0, help="Share of a weight's deviation.")] = 0.3,
    windows: Annotated[int, typer.Option(min=1, help="Windows to train on.")] = 120,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a window.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Windows of a step.")] = 4,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-4,
) -> None:  # fmt: skip
    """Write a checkpoint of a trained mixture of experts."""
    source = api.shipped_model() if checkpoint is None else checkpoint
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors"))
    raw = json.loads((source / "config.json").read_text(encoding="utf-8"))
    changes = {"num_local_experts": experts, "num_experts_per_tok": top_k}
    changes |= {"router_aux_loss_coef": 0.01, "sliding_window": None}
    (out / "config.json").write_text(json.dumps(raw | _CONFIG | changes, indent=2) + "\n")
    made = mixture_of(load_file(source / "model.safetensors"), num_experts=experts, noise=noise)
    save_file(made, out / "model.safetensors", {"format": "pt"})
    dense = api.load(source)
    text, _ = api.text_windows(dense, None, num_windows=windows, length=length, seed=1)
    held_out = api.text_of(dense, None, max_tokens=4096)
    for what, directory in (("the dense model", source), ("with noise", out)):
        _say(what, directory, held_out.tokens)
    loss = train(out, text, batch=batch, rate=rate)
    Console().print(f"loss of the last steps: {loss:.3f}")
    _say("trained", out, held_out.tokens)


def _say(what: str, directory: Path, tokens: list[int]) -> None:
    from asterope import llm

    quality, _ = llm.evaluate(llm.load_model(directory), {}, tokens)
    Console().print(f"perplexity of {what}: {quality.perplexity:.3f}")


if __name__ == "__main__":
    typer.run(main)
