"""Write the small checkpoints of tests/data/foreign with the tools whose layouts they have.

    python tools/write_foreign_checkpoints.py tests/data/foreign

Needs nvidia-modelopt 0.47, amd-quark 0.13 and transformers, and no GPU: Model Optimizer writes its
MX formats with one only. Beside each checkpoint lie the weights that the tool itself reads out of
it, `NAME.expected.safetensors`, in float32.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "architectures": ["LlamaForCausalLM"],
}
MODELOPT = {
    "modelopt_nvfp4": "NVFP4_DEFAULT_CFG",
    "modelopt_fp8": "FP8_DEFAULT_CFG",
    "modelopt_fp8_rows": "FP8_PER_CHANNEL_PER_TOKEN_CFG",
    "modelopt_w4a8_nvfp4_fp8": "W4A8_NVFP4_FP8_CFG",
}


def model() -> Any:
    """Make a random model whose rows and projections differ in size."""
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, dtype="bfloat16"))
    for index, parameter in enumerate(made.parameters()):
        if parameter.dim() == 2:
            rows = torch.logspace(-1, 1, len(parameter))[:, None] * 2.0 ** (index % 5)
            parameter.data = (torch.randn(parameter.shape) * 0.05 * rows).bfloat16()
    return made.to(torch.bfloat16).eval()


def texts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 64, (1, 32), generator=generator) for _ in range(2)]


def by_modelopt(config: str) -> Callable[[Path], dict[str, torch.Tensor]]:
    def write(directory: Path) -> dict[str, torch.Tensor]:
        import modelopt.torch.quantization as mtq
        from modelopt.torch.export import export_hf_checkpoint

        def run(model: Any) -> None:
            for tokens in texts():
                model(tokens)

        quantized = mtq.quantize(model(), getattr(mtq, config), run)
        with torch.inference_mode():
            export_hf_checkpoint(quantized, export_dir=directory)
        return dict(modelopt_weights(load_file(directory / "model.safetensors")))

    return write


def modelopt_weights(stored: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    from modelopt.torch.quantization.qtensor import FP8QTensor, NVFP4QTensor

    for name, codes in stored.items():
        scale = stored.get(f"{name}_scale")
        if scale is None:
            continue
        if codes.dtype == torch.uint8:
            shape = torch.Size((len(codes), 2 * codes.shape[1]))
            yield name, NVFP4QTensor(shape, torch.float32, codes).dequantize(
                dtype=torch.float32, scale=scale, double_scale=stored[f"{name}_scale_2"],
                block_sizes={-1: shape[1] // scale.shape[1]}, fast=False,
            )  # fmt: skip
        else:
            scale = scale if scale.dim() == 0 else scale[:, None]
            yield (
                name,
                FP8QTensor(codes.shape, torch.float32, codes).dequantize(
                    dtype=torch.float32, scale=scale
                ),
            )


def by_quark(weight: str, inputs: str | None) -> Callable[[Path], dict[str, torch.Tensor]]:
    def write(directory: Path) -> dict[str, torch.Tensor]:
        from quark.torch import ModelQuantizer, export_safetensors
        from quark.torch.quantization.config import config as q

        specs = {
            "mxfp4": q.OCP_MXFP4Spec(ch_axis=-1, is_dynamic=False),
            "mxfp4_dynamic": q.OCP_MXFP4Spec(ch_axis=-1, is_dynamic=True),
            "fp8": q.FP8E4M3PerTensorSpec(observer_method="min_max", is_dynamic=False),
            "fp8_rows": q.FP8E4M3PerChannelSpec(ch_axis=0, is_dynamic=False),
        }
        chosen = q.QLayerConfig(
            weight=specs[weight].to_quantization_spec(),
            input_tensors=specs[inputs].to_quantization_spec() if inputs else None,
        )
        quantizer = ModelQuantizer(q.QConfig(global_quant_config=chosen, exclude=["lm_head"]))
        frozen = quantizer.freeze(quantizer.quantize_model(model(), texts()))
        rounded = {
            f"{name}.weight": module.weight.detach().float().clone()
            for name, module in frozen.named_modules()
            if name.endswith("_proj")
        }
        with torch.no_grad():
            export_safetensors(frozen, str(directory))
        return rounded

    return write


WRITERS = {
    **{name: by_modelopt(config) for name, config in MODELOPT.items()},
    "quark_mxfp4": by_quark("mxfp4", "mxfp4_dynamic"),
    "quark_fp8": by_quark("fp8", "fp8"),
    "quark_fp8_rows": by_quark("fp8_rows", None),
}
KEPT = ("config.json", "model.safetensors", "hf_quant_config.json")


def main(target: Path) -> None:
    for name, write in WRITERS.items():
        directory = target / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        save_file(write(directory), target / f"{name}.expected.safetensors")
        for path in directory.iterdir():
            if path.name not in KEPT:
                path.unlink()
        for path in (target / f"{name}.expected.safetensors", *directory.iterdir()):
            path.chmod(0o644)
        print(name, sum(path.stat().st_size for path in directory.iterdir()), "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
