"""The model as users hold it: load, quantize, score, generate, simulate, save."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asterope import __version__, chips, llm, twin
from asterope.api.calibration import Calibration, read_calibration, text_windows
from asterope.api.save import save_checkpoint
from asterope.api.source import Source, checkpoint_directory, find_source, resolve_scheme
from asterope.api.timed import Run, events_per_launch
from asterope.chips import Chip
from asterope.cost import Assumptions
from asterope.errors import CheckpointError, ConfigError, ShapeError, UnsupportedError
from asterope.kernels import cache_format
from asterope.quant import Mix, Plan

__all__ = ["CACHE_WINDOW", "LanguageModel", "from_config", "load", "made_from", "with_scheme"]

Progress = Callable[[int, int], None]
CACHE_WINDOW = 512
"""Tokens of a window of text that scales of a KV cache are taken from."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LanguageModel:
    """A language model with its tokenizer; methods return new ones and change none.

    `scheme` says how it is quantized, None if it is not, and `algorithm` by what. A model made by
    `from_config` has shapes but no weights: it can be simulated and priced, not run.
    """

    model: llm.Model
    source: Source
    tokenizer: llm.Tokenizer | None
    scheme: Plan | None
    dtype: str | None
    algorithm: str = "rtn"

    @property
    def name(self) -> str:
        """The name of the checkpoint's directory, or the published name."""
        return self.source.name

    @property
    def config(self) -> llm.ModelConfig:
        """What the model is, from its config.json."""
        return self.model.config

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights in memory, a tied embedding once."""
        model = self.model
        if model.is_lazy:
            model = llm.model_from_config(self.source.config, scheme=self.scheme, dtype=self.dtype)
        return model.weight_bytes

    @property
    def has_weights(self) -> bool:
        """Whether it can be run, not only timed."""
        return self.model.device != "meta"

    def quantize(
        self,
        fmt: str | Mix = "mxfp4",
        *,
        activations: str = "bf16",
        rule: str | None = None,
        algorithm: str | None = None,
        calibrate: str | Path | None = None,
        calibration_windows: int = 64,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """Return the original with its linear layers rounded to a format, `bf16` for unquantized.

        Embedding, norms and output head stay as they are. `activations` are bf16, fp8 or same;
        `mxfp4/fp8` says both. A `Mix` gives each place of each layer its own. By `rtn` the weights
        are read from the checkpoint again, so quantizing a quantized model does not round twice.
        Other algorithms look at windows of the text that `calibrate` names: `read_calibration`
        says what it may be.

        Raises: FormatError for a format that does not exist; ShapeError if its block does not
        divide a layer; CheckpointError naming the tensor that is not finite; ConfigError if the
        checkpoint itself is quantized, or the text cannot be used.
        """
        if isinstance(fmt, Mix):
            scheme = fmt.simplest
        else:
            scheme = resolve_scheme(fmt, activations=activations, rule=rule)
        text = None if calibrate is None else Path(calibrate)
        calibration = read_calibration(self, algorithm, text, num_windows=calibration_windows)
        return with_scheme(self, scheme, progress, calibration)

    def with_cache(
        self, fmt: str = "fp8", *, calibrate: str | Path | None = None,
        calibration_windows: int = 16, progress: Progress | None = None,
    ) -> LanguageModel:  # fmt: skip
        """Return the model with a KV cache in a format of `llm.CACHE_FORMATS`.

        With weights each layer's scales are those of the largest key and value in windows of the
        text that `calibrate` names, as `text_windows` reads it.

        Raises: ConfigError for a format that does not exist, or a text that cannot be used;
        CheckpointError for keys or values that are not finite, or without a tokenizer.
        """
        windows = None
        if self.has_weights and cache_format(fmt).largest is not None:
            file = None if calibrate is None else Path(calibrate)
            windows, _ = text_windows(
                self, file, num_windows=calibration_windows, length=CACHE_WINDOW
            )
        return dataclasses.replace(
            self, model=llm.with_cache(self.model, fmt, windows, progress=progress)
        )

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, with those that the tokenizer opens a document with.

        Raises: CheckpointError if there is no tokenizer, or it does not fit the model.
        """
        if self.tokenizer is None:
            raise CheckpointError(
                "there is no tokenizer.json", where=self.source.where,
                hint="copy it from the original checkpoint",
            )  # fmt: skip
        tokens = self.tokenizer.encode(text, special=True)
        largest = max(tokens, default=0)
        if largest >= self.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer gave token {largest}, and the model has {self.config.vocab_size}",
                where=self.source.where,
            )
        return tokens

    def perplexity(self, text: str, *, context: int = 512) -> float:
        """Return exp of the mean negative log-likelihood of a token, in overlapping windows.

        Raises: UnsupportedError without weights; ConfigError if the text is too short.
        """
        self._needs_weights("scored")
        quality, _ = llm.evaluate(self.model, {}, self.encode(text), context=context)
        return quality.perplexity

    def stream(
        self, prompt: str, *, max_new_tokens: int = 64, sampling: llm.Sampling | None = None
    ) -> Iterator[str]:
        """Yield the continuation of a prompt as it is computed, in pieces of text.

        Raises: UnsupportedError without weights; ConfigError for a prompt that is empty or longer
        than the context.
        """
        self._needs_weights("run")
        tokens = self.encode(prompt)
        assert self.tokenizer is not None
        written: list[int] = []
        said = ""
        for token in llm.generate(
            self.model, tokens, max_new_tokens=max_new_tokens, sampling=sampling
        ):
            written.append(token)
            text = self.tokenizer.decode(written)
            # A character of several tokens decodes to U+FFFD until its last one is there.
            if not text.endswith("\ufffd"):
                yield text[len(said) :]
                said = text
        rest = self.tokenizer.decode(written)[len(said) :]
        if rest:
            yield rest

    def generate(
        self, prompt: str, *, max_new_tokens: int = 64, temperature: float = 0.0, top_k: int = 0,
        top_p: float = 1.0, seed: int = 0,
    ) -> str:  # fmt: skip
        """Return the continuation of a prompt; temperature 0 takes the likeliest token each time.

        Raises: as `stream`.
        """
        sampling = llm.Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        return "".join(self.stream(prompt, max_new_tokens=max_new_tokens, sampling=sampling))

    def simulate(  # noqa: PLR0913 - as `twin.time_step`
        self, chip: Chip | str = "maia200", *, batch: int = 1, context: int = 1024,
        phase: twin.Phase = "decode", fidelity: chips.Fidelity | None = None,
        tensor_parallel: int = 1, expert_parallel: int = 1,
        expert_loads: llm.ExpertLoads = "random", overlap: twin.Overlap = "none",
        assumptions: Assumptions | None = None,
    ) -> Run:  # fmt: skip
        """Time one step on a chip: a token for each of `batch` sequences, or their prefill.

        With `tensor_parallel` so many chips share each layer, and exchange their sums;
        with `expert_parallel` so many share the experts, and the batch. Which experts tokens go to
        is assumed: `random`, or `even`. With an `overlap` of `halves` two halves of the step take
        turns, and what one exchanges is hidden behind the kernels of the other.

        `fidelity` left out is the finest that the chip is described for: `tile`, `operator` or
        `roofline`.

        Raises: ChipError for a chip that does not exist; ConfigError for a batch or context
        outside its limits.
        """
        described = chips.get(chip) if isinstance(chip, str) else chip
        step = twin.time_step(
            self.model, described, phase=phase, batch=batch, context=context,
            fidelity=fidelity or described.fidelities[-1], tensor_parallel=tensor_parallel,
            expert_parallel=expert_parallel,
            expert_loads=expert_loads, overlap=overlap,
            max_events=events_per_launch(self.config.num_layers, num_steps=1),
        )  # fmt: skip
        return Run(step=step, chip=described, assumptions=assumptions or Assumptions())

    def save(
        self,
        directory: str | Path,
        *,
        progress: Progress | None = None,
        kept_in: Path | None = None,
    ) -> Path:
        """Write a checkpoint that Transformers and vLLM read: compressed-tensors if quantized.

        It is written beside its place, read back, compared, and only then given its name; layers
        that `with_scheme` kept in `kept_in` are deleted before.

        Raises: OutputError if the directory holds something or cannot be written, or what was read
        back differs; UnsupportedError without weights.
        """
        self._needs_weights("saved")
        place = Path(directory)
        return save_checkpoint(self.model, self.source, self.scheme, place, progress, kept_in)

    def _needs_weights(self, done: str) -> None:
        if not self.has_weights:
            raise UnsupportedError(
                f"has no weights, so it cannot be {done}", where=self.name,
                hint="load a checkpoint directory: asterope.load(path)",
            )  # fmt: skip


def load(
    path: str | Path, *, dtype: str | None = None, progress: Progress | None = None,
    lazily: bool = False,
) -> LanguageModel:  # fmt: skip
    """Load a Hugging Face checkpoint: config.json, safetensors, tokenizer.json if there is one.

    The path `stdlib-llama` means the model that ships with Asterope, unless there is one.
    `dtype` is that of activations, the checkpoint's own if left out: float32, bfloat16, float16.
    `lazily` leaves each layer in the files until it is asked for, and reads, checks and quantizes
    it each time that it is; a checkpoint that is quantized already is read whole.

    Raises: CheckpointError naming the file, field or tensor that is missing or wrong.
    """
    directory = checkpoint_directory(path)
    source = Source(
        name=directory.resolve().name, where=str(path),
        config=llm.read_checkpoint_config(directory), directory=directory,
    )  # fmt: skip
    lazily = lazily and source.stored_scheme is None
    model = llm.load_model(directory, dtype=dtype, progress=progress, lazily=lazily)
    model.name = source.name
    has_tokenizer = (directory / "tokenizer.json").is_file()
    tokenizer = llm.load_tokenizer(directory) if has_tokenizer else None
    return LanguageModel(
        model=model, source=source, tokenizer=tokenizer, scheme=model.plan, dtype=dtype
    )


def from_config(
    model: str | Path | Mapping[str, Any], *, dtype: str | None = None
) -> LanguageModel:
    """Make a model of the right shapes without weights, to simulate and price.

    `model` is a checkpoint directory, a config.json or what it holds, or a published name such as
    `llama-3.1-70b`.

    Raises: CheckpointError for a configuration that is missing or not supported; ConfigError, with
    the nearest name, for a name that is not published.
    """
    if isinstance(model, Mapping):
        source = Source(name="config", where="config", config=model)
    else:
        source = dataclasses.replace(find_source(model), directory=None)
    # What the architecture is comes before how it is stored: the error about it says more.
    llm.ModelConfig.from_dict(source.config, where=source.where)
    scheme = source.stored_scheme
    shapes = llm.model_from_config(source.config, scheme=scheme, dtype=dtype, name=source.name)
    if source.cache_format != "auto":
        shapes = llm.with_cache(shapes, source.cache_format)
    return LanguageModel(model=shapes, source=source, tokenizer=None, scheme=scheme, dtype=dtype)


def with_scheme(
    original: LanguageModel, scheme: Plan | None, progress: Progress | None = None,
    calibration: Calibration | None = None, kept_in: Path | None = None,
) -> LanguageModel:  # fmt: skip
    """Return the original's weights under another scheme, None for unquantized.

    With a calibration they are quantized by its algorithm, layer by layer, in what it makes of the
    scheme (`Algorithm.plan`). Layers that are done are kept in a directory `kept_in`: a run of the
    same that was killed goes on behind them.

    Raises: as `LanguageModel.quantize`.
    """
    source, how = original.source, "rtn" if calibration is None else calibration.algorithm.name
    if calibration is not None and scheme is not None:
        scheme = calibration.algorithm.plan(scheme)
    stored = source.stored_scheme
    if scheme == original.scheme and (scheme is None or stored or how == original.algorithm):
        return original
    if stored is not None and source.directory is None:  # shapes can be timed in any format
        config = {k: v for k, v in source.config.items() if k != "quantization_config"}
        source = dataclasses.replace(source, config=config)
        original = dataclasses.replace(original, source=source)
    elif stored is not None:
        raise ConfigError(
            f"the checkpoint is already quantized ({stored.describe()})",
            where=source.where,
            hint="quantize the original, or leave the format out",
        )
    try:
        if calibration is None or scheme is None:
            model = _build(original, scheme, progress)
        else:
            plain = with_scheme(original, None)
            plain._needs_weights("calibrated")
            kept = None
            if kept_in is not None:
                kept = llm.KeptLayers(
                    kept_in,
                    made_from(plain, scheme, calibration.algorithm, calibration.windows.tolist()),
                )
            model = llm.quantize_layers(
                plain.model, scheme, calibration.algorithm, calibration.windows, kept=kept,
                progress=progress,
            )  # fmt: skip
    except ShapeError as error:
        where = f"{source.where}: {error.where}"
        raise ShapeError(error.what, where=where, hint=error.hint) from None
    return dataclasses.replace(original, model=model, scheme=scheme, algorithm=how)


def made_from(original: LanguageModel, *terms: object) -> str:
    """Return a digest of a model and what else a result depends on; of files, size and age."""
    directory = original.source.directory
    files = [] if directory is None else sorted(directory.glob("*.safetensors"))
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    known = (__version__, original.source.config, stats, str(original.model.dtype), *terms)
    return hashlib.sha256(repr(known).encode()).hexdigest()


def _build(original: LanguageModel, scheme: Plan | None, progress: Progress | None) -> llm.Model:
    source, dtype = original.source, original.dtype
    if source.directory is None:
        return llm.model_from_config(source.config, scheme=scheme, dtype=dtype, name=source.name)
    model = llm.load_model(
        source.directory, scheme=scheme, dtype=dtype, progress=progress,
        lazily=original.model.is_lazy,
    )  # fmt: skip
    model.name = source.name
    return model
