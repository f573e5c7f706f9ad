"""One tool's GPTQ on one checkpoint, in a process of its own: what it gives, takes and holds.

`bench_gptq` starts it. It quantizes one layer, so that libraries are loaded and code is compiled;
then it loads the model and quantizes its linear layers, weights alone, on windows of tokens: time
and memory are those of that last part. What a tool gives is written as the float32 values of its
codes and scales, under the names of the checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file, save_file

_PRESETS = MappingProxyType({"nvfp4": "NVFP4A16", "mxfp4": "MXFP4A16"})
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_HIGH_WATER = "5"


def memory(field: str) -> int:
    """Return bytes of this process: `VmRSS` now, `VmHWM` at most since the last reset."""
    found = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None
    return int(found[1]) * 1024


class _Asterope:
    """Ours: what `asterope quantize --algorithm` does between reading and writing."""

    packages = ("asterope",)

    def __init__(self, fmt: str) -> None:
        from asterope import llm, quant

        self._llm = llm
        self._scheme, self._algorithm = quant.scheme(fmt), quant.algorithm("gptq")

    def load(self, checkpoint: Path, *, first_layer_only: bool) -> None:
        model = self._llm.load_model(checkpoint)
        if first_layer_only:
            config = dataclasses.replace(
                model.config, num_layers=1, windows=model.config.windows[:1]
            )
            model = dataclasses.replace(model, config=config, layers=[model.layers[0]])
        for layer in model.layers:  # they are mapped: read them, as the others have theirs
            for place in self._llm.projections(model.config):
                getattr(layer, place).weight.sum()
        self._model = model

    def quantize(self, windows: torch.Tensor) -> None:
        self._made = self._llm.quantize_layers(self._model, self._scheme, self._algorithm, windows)

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        for index, layer in enumerate(self._made.layers):
            for place, pieces in self._llm.projections(self._made.config).items():
                rows = getattr(layer, place).dequantize().split([n for _, n, _, _ in pieces])
                for (name, *_), weight in zip(pieces, rows, strict=True):
                    yield f"model.layers.{index}.{name}.weight", weight


class _LlmCompressor:
    """llm-compressor's GPTQModifier with its defaults, by the preset of the format."""

    packages = ("llmcompressor", "compressed-tensors", "transformers")

    def __init__(self, fmt: str) -> None:
        import llmcompressor
        from llmcompressor.modifiers.gptq import GPTQModifier
        from loguru import logger

        logger.remove()
        self._oneshot, self._modifier = llmcompressor.oneshot, GPTQModifier
        self._preset = _PRESETS[fmt]

    def load(self, checkpoint: Path, *, first_layer_only: bool) -> None:
        self._model = _transformers_model(checkpoint, first_layer_only)

    def quantize(self, windows: torch.Tensor) -> None:
        rows = [{"input_ids": w, "attention_mask": torch.ones_like(w)} for w in windows]
        data = torch.utils.data.DataLoader(rows, batch_size=1)
        self._oneshot(
            model=self._model, dataset=data,
            recipe=self._modifier(targets="Linear", scheme=self._preset, ignore=["lm_head"]),
            num_calibration_samples=len(rows), max_seq_length=windows.shape[1],
        )  # fmt: skip

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        from compressed_tensors.quantization import fake_quantize

        for name, module in self._model.named_modules():
            scheme = getattr(module, "quantization_scheme", None)
            if scheme is None:
                continue
            # The weight holds rounded values in bf16; what is stored are the codes nearest to them.
            yield f"{name}.weight", fake_quantize(
                module.weight.float(), module.weight_scale.float(), None, scheme.weights,
                global_scale=getattr(module, "weight_global_scale", None),
            )  # fmt: skip


class _TorchAo:
    """torchao's prototype, block by block as in its example, observing what rounded blocks give.

    It refuses CPUs with an assertion, which `python -O` leaves out; nothing in it needs a GPU.
    """

    packages = ("torchao", "transformers")

    def __init__(self, fmt: str) -> None:
        from torchao.prototype.gptq import GPTQConfig
        from torchao.prototype.mx_formats.inference_workflow import (
            NVFP4DynamicActivationNVFP4WeightConfig,
        )
        from torchao.quantization import quantize_

        base = NVFP4DynamicActivationNVFP4WeightConfig(
            use_dynamic_per_tensor_scale=True, use_triton_kernel=False
        )
        self._configs = [GPTQConfig(step=step, base_config=base) for step in ("observe", "convert")]
        self._quantize = quantize_
        torch.cuda.synchronize = lambda *_: None

    def load(self, checkpoint: Path, *, first_layer_only: bool) -> None:
        self._model = _transformers_model(checkpoint, first_layer_only)

    @torch.no_grad()
    def quantize(self, windows: torch.Tensor) -> None:
        model = self._model.model
        with contextlib.redirect_stdout(sys.stderr):
            self._quantize(model, self._configs[0])
            positions = torch.arange(windows.shape[1])[None]
            states = [model.embed_tokens(window[None]) for window in windows]
            shared = {
                "position_ids": positions,
                "position_embeddings": model.rotary_emb(states[0], positions),
            }
            for block in model.layers:
                for state in states:
                    block(state, **shared)
                self._quantize(block, self._configs[1])
                for module in block.modules():
                    if isinstance(module, torch.nn.Linear):
                        module.weight.act_quant_kwargs = None
                states = [block(state, **shared) for state in states]

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, module in self._model.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                yield f"{name}.weight", module.weight.dequantize(torch.float32)


def _transformers_model(checkpoint: Path, first_layer_only: bool) -> Any:
    from transformers import AutoModelForCausalLM

    changes = {"num_hidden_layers": 1} if first_layer_only else {}
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16, **changes)


TOOLS: Mapping[str, Callable[[str], Any]] = {
    "asterope": _Asterope, "llm-compressor": _LlmCompressor, "torchao": _TorchAo,
}  # fmt: skip


def main(tool: str, fmt: str, checkpoint: str, windows: str, out: str) -> None:
    """Quantize and write the weights; say seconds, bytes and versions as JSON on the last line."""
    made, tokens = TOOLS[tool](fmt), load_file(windows)["windows"]
    made.load(Path(checkpoint), first_layer_only=True)
    made.quantize(tokens[:1])
    made.load(Path(checkpoint), first_layer_only=False)
    gc.collect()
    _CLEAR.write_text(_RESET_HIGH_WATER)
    idle, start, start_cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    made.quantize(tokens)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    held = memory("VmHWM") - idle
    save_file({name: w.float().contiguous() for name, w in made.weights()}, out)
    print(json.dumps({
        "seconds": seconds, "cpu_seconds": cpu_seconds, "num_bytes": held,
        "versions": {name: version(name) for name in made.packages},
    }))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
