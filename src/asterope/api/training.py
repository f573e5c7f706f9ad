"""Train a checkpoint for a format it will be rounded to: distillation from itself, unrounded."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

import torch
from torch import nn

from asterope import llm
from asterope.api.calibration import Calibration, text_windows
from asterope.api.language_model import LanguageModel, made_from, with_scheme
from asterope.api.optional import optional_package
from asterope.api.progress import Progress, silent
from asterope.api.source import resolve_scheme
from asterope.errors import ConfigError, UnsupportedError
from asterope.native import best_isa
from asterope.quant import IGNORED, Scheme, algorithm, prepare_qat, unpack_experts

__all__ = ["TrainedModel", "forget_training", "from_trained", "torch_model", "train"]

_HELD_OUT, _CALIBRATED = 16, 64
_LENGTH = 512
_START = "awq_gptq"
_UNTRAINED = ("embed_tokens", *IGNORED)
"""Modules that are not rounded to a format: training would move rare tokens at random, and send
tokens to other experts.
"""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    """A model that training made, how the training went, and the text in words."""

    model: LanguageModel
    trained: llm.Trained
    what: str


def train(
    original: LanguageModel, fmt: Scheme | str | None = "mxfp4", *,
    text: str | Path | None = None, plan: llm.TrainingPlan | None = None,
    start: str | LanguageModel | None = None, kept_in: Path | None = None,
    progress: Progress = silent,
) -> TrainedModel:  # fmt: skip
    """Train an original's weights so that little is lost when they are rounded to a format.

    It starts from what the algorithm `start` makes of them, `rtn` for the weights as they are, or
    from a model that is quantized to the format. Left out, it is `awq_gptq`, which beside a branch
    is what `svdquant` does. The loss is the divergence from the original on windows of 512 tokens
    of a text, which is as in `read_calibration`; 16 windows of it are held out, and the weights
    that do best on them kept. Projections and norms are trained, in float32; the embedding, the
    head and the routers of experts stay as they are; what is computed between is in bf16 if the
    original is and this CPU multiplies bf16, else in float32. With `kept_in` a run that was killed
    goes on from that file, to the same bytes; layers of what it starts from are kept beside it
    until then (`forget_training`).

    Raises: as `LanguageModel.quantize`; ConfigError without transformers, if training diverges, or
    if it would start from another format.
    """
    scheme = resolve_scheme(fmt) if isinstance(fmt, str) else fmt
    if scheme is None:
        raise ConfigError("there is nothing to train for", where="format", hint="use mxfp4")
    plan = plan or llm.TrainingPlan()
    wanted = plan.steps * plan.windows_per_step + _HELD_OUT
    windows, what = text_windows(
        original, None if text is None else Path(text), num_windows=wanted, length=_LENGTH
    )
    held = min(_HELD_OUT, len(windows) // 2)
    if held < 1:
        raise ConfigError(f"{what} are too few: some are held out", where="text")
    student, teacher = torch_model(original), torch_model(original)
    prepare_qat(student, scheme)
    calibration = windows[held : held + _CALIBRATED]
    first = _first(original, scheme, start, calibration, what, kept_in, progress)
    if first is not None:
        llm.start_from(student, first.model)
    for name, parameter in student.named_parameters():
        module = name.rpartition(".")[0].rpartition(".")[2]
        parameter.requires_grad_(module not in _UNTRAINED)
    computed_in = _computing_type(original.model.dtype)
    teacher.to(computed_in)
    kept = None
    if kept_in is not None:
        kept = llm.TrainingState(
            kept_in,
            made_from(
                original,
                scheme,
                plan,
                _digest(student) if isinstance(start, LanguageModel) else start or _START,
                windows.tolist(),
                str(computed_in),
            ),
        )
    with torch.autocast("cpu", torch.bfloat16, enabled=computed_in == torch.bfloat16):
        trained = llm.distill(
            student, teacher, windows[held:], windows[:held], plan, kept=kept,
            progress=lambda done, steps, _: progress("train", done, steps),
        )  # fmt: skip
    return TrainedModel(model=from_trained(original, student), trained=trained, what=what)


def forget_training(kept_in: Path) -> None:
    """Delete what `train` kept in a file and beside it."""
    kept_in.unlink(missing_ok=True)
    llm.KeptLayers.remove(_start_kept_in(kept_in))


def _start_kept_in(kept_in: Path) -> Path:
    return kept_in.with_name(kept_in.name + ".start")


def _first(
    original: LanguageModel, scheme: Scheme, start: str | LanguageModel | None,
    windows: torch.Tensor, what: str, kept_in: Path | None, progress: Progress,
) -> LanguageModel | None:  # fmt: skip
    """Return what training starts from, None for the weights as they are."""
    if isinstance(start, LanguageModel):
        return start
    how = algorithm(start or _START)
    if how.ranked(scheme) != scheme:
        raise ConfigError(
            f"adds a branch, and {scheme.name} has none", where=f"start {how.name}",
            hint=f"train for {how.ranked(scheme).name}",
        )  # fmt: skip
    if not how.needs_text:
        return None
    return with_scheme(
        original, scheme, functools.partial(progress, how.name),
        Calibration(algorithm=how, windows=windows, what=what),
        None if kept_in is None else _start_kept_in(kept_in),
    )  # fmt: skip


def _digest(module: nn.Module) -> str:
    """Return a digest of all numbers of a module."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def torch_model(original: LanguageModel) -> nn.Module:
    """Return the model as transformers has it, with the checkpoint's weights in float32.

    Raises: ConfigError without transformers or for a quantized checkpoint; UnsupportedError
    without weights or with attention over latents; CheckpointError for tensors that are missing or
    wrong.
    """
    directory = original.source.directory
    if directory is None:
        raise UnsupportedError("has no weights, so it cannot be trained", where=original.name)
    if original.config.latent is not None:
        raise UnsupportedError(
            "attends over latents, which cannot be trained", where=original.name,
            hint="quantize it: asterope quantize",
        )  # fmt: skip
    if original.source.stored_scheme is not None:
        raise ConfigError(
            "the checkpoint is already quantized", where=original.source.where,
            hint="train the original",
        )  # fmt: skip
    auto = optional_package(
        "transformers", called="transformers", purpose="training", extra="train"
    )
    config = auto.AutoConfig.from_pretrained(
        str(directory), local_files_only=True, trust_remote_code=False
    )
    config.use_cache = False
    model: nn.Module = auto.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, trust_remote_code=False
    )
    unpack_experts(model)
    # Read by us: checked, and never unpickled.
    with llm.open_tensors(directory) as files, torch.no_grad():
        for name, parameter in model.named_parameters():
            stored = llm.stored_name(original.config, name)
            parameter.copy_(files.get(stored, tuple(parameter.shape), torch.float32))
    return model


def from_trained(original: LanguageModel, module: nn.Module) -> LanguageModel:
    """Return the quantized model that a module in training stands for, to score, run and save.

    The module is the original as transformers has it, made ready by `quant.prepare_qat` and trained
    by any loop. Codes and scales are those of its forward pass, bit for bit.

    Raises: as `llm.trained_model`.
    """
    model, scheme = llm.trained_model(original.model, module)
    return dataclasses.replace(original, model=model, scheme=scheme, algorithm="qad")


def _computing_type(dtype: torch.dtype) -> torch.dtype:
    """Return what is computed in between: bf16 if it is the original's and the CPU multiplies it.

    Where it does not, torch takes 4 to 100 times as long for it as for float32.
    """
    return torch.bfloat16 if dtype == torch.bfloat16 and best_isa().has_bf16 else torch.float32
