"""Give a checkpoint outlier channels without changing what it computes.

Run it as `python -m benchmarks.quality.outliers OUT`, then quantize OUT. In every layer
some channels after each norm become larger by a factor, and the weights that read them smaller by
the same: a power of two, so that nothing is rounded. Real models have such channels, and formats
whose scales are shared lose what lies beside them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from safetensors.torch import load_file, save_file

from asterope import api

READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


def add_outliers(
    tensors: dict[str, torch.Tensor], *, share: float, factor: float, seed: int = 0
) -> None:
    """Scale a share of the channels after each norm by a power of two, in place.

    Raises: ValueError if a weight would no longer be the same number, times the factor.
    """
    drawn = torch.Generator().manual_seed(seed)
    for name in [n for n in tensors if n.endswith("layernorm.weight")]:
        layer, _, norm = name.removesuffix(".weight").rpartition(".")
        gain = tensors[name]
        chosen = torch.randperm(len(gain), generator=drawn)[: max(1, round(share * len(gain)))]
        scale = torch.ones_like(gain)
        scale[chosen] = factor
        tensors[name] = gain * scale
        for reader in READERS[norm]:
            weight = tensors[f"{layer}.{reader}.weight"]
            smaller = weight / scale
            if not torch.equal(smaller * scale, weight):
                raise ValueError(
                    f"{layer}.{reader}: {factor:g} is too much for its smallest weights"
                )
            tensors[f"{layer}.{reader}.weight"] = smaller


def main(
    out: Annotated[Path, typer.Argument(help="Directory to write.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint; the shipped model.")] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of the channels.")] = 0.01,
    factor: Annotated[float, typer.Option(min=2, help="A power of two.")] = 64,
) -> None:
    """Write a checkpoint that computes the same and has outliers."""
    source = api.shipped_model() if checkpoint is None else checkpoint
    tensors = load_file(source / "model.safetensors")
    add_outliers(tensors, share=share, factor=factor)
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    text = api.text_of(api.load(source), None, max_tokens=512).tokens
    was, now = (
        one.model.forward(torch.tensor([text]), one.model.new_cache(1, len(text)))
        for one in (api.load(source), api.load(out))
    )
    Console().print(f"largest change of a logit: {float((was - now).abs().max()):g}")


if __name__ == "__main__":
    typer.run(main)
