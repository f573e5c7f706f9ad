"""The text that quantization looks at: a file of yours, or sources of Python's own library."""

from __future__ import annotations

import importlib
import json
import platform
import random
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from asterope.api.text import HELD_OUT_MODULES
from asterope.errors import ConfigError
from asterope.quant import Algorithm, algorithm

if TYPE_CHECKING:
    from asterope.api.language_model import LanguageModel

__all__ = ["Calibration", "read_calibration", "text_windows"]

_FIELD = "text"
_CHARACTERS_PER_TOKEN = 16


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Calibration:
    """An algorithm, the windows of tokens it looks at, and what they are in words.

    Shapes: windows [S, T].
    """

    algorithm: Algorithm
    windows: torch.Tensor
    what: str


def read_calibration(
    model: LanguageModel, name: str | None = None, file: Path | None = None, *,
    num_windows: int = 64, length: int = 512, seed: int = 0,
) -> Calibration | None:  # fmt: skip
    """Return how to calibrate an algorithm: None for one that needs no text.

    The algorithm is `gptq` where none is named but a file is, else `rtn`. A file is plain text,
    JSON lines or Parquet with a field `text`; its documents are taken in order until there are
    `num_windows` of `length` tokens, or of the model's context. Without a file, library sources
    that the shipped model is not scored on are taken in an order drawn by `seed`.

    Raises: ConfigError for an algorithm that does not exist, a file that cannot be read, or one
    with fewer tokens than a window; CheckpointError if there is no tokenizer.
    """
    chosen = algorithm(name or ("rtn" if file is None else "gptq"))
    if not chosen.needs_text:
        if file is not None:
            raise ConfigError(
                "looks at no text", where=f"algorithm {chosen.name}",
                hint="leave --calibrate out, or use --algorithm gptq",
            )  # fmt: skip
        return None
    windows, what = text_windows(model, file, num_windows=num_windows, length=length, seed=seed)
    return Calibration(algorithm=chosen, windows=windows, what=what)


def text_windows(
    model: LanguageModel, file: Path | None, *, num_windows: int, length: int, seed: int = 0
) -> tuple[torch.Tensor, str]:
    """Return windows of a text that is as in `read_calibration`, and what they are in words.

    Shapes: result [S, T], at most `num_windows` of `length`.
    Raises: as `read_calibration`.
    """
    length = min(length, model.config.max_context)
    documents = _library(seed) if file is None else _documents(file, num_windows * length)
    tokens: list[int] = []
    for document in documents:
        tokens += model.encode(document)
        if len(tokens) >= num_windows * length:
            break
    count = min(num_windows, len(tokens) // length)
    if count < 1:
        raise ConfigError(
            f"{len(tokens)} tokens are fewer than a window of {length}",
            where="calibration text" if file is None else str(file),
        )
    source = f"Python {platform.python_version()}'s own sources" if file is None else str(file)
    windows = torch.tensor(tokens[: count * length]).view(count, length)
    return windows, f"{count} windows of {length} tokens of {source}"


def _library(seed: int) -> Iterator[str]:
    """Yield the modules that the shipped model is not scored on."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(file for file in root.glob("*.py") if file.name not in HELD_OUT_MODULES)
    random.Random(seed).shuffle(files)
    for file in files:
        yield file.read_text(encoding="utf-8")


def _documents(file: Path, num_tokens: int) -> Iterator[str]:
    """Yield the texts of a file.

    Raises: ConfigError naming the file, and the line that is wrong.
    """
    read = _READERS.get(file.suffix.lower(), _plain)
    try:
        yield from read(file.expanduser(), num_tokens)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ConfigError(f"cannot be read: {reason}", where=str(file)) from None


def _plain(file: Path, num_tokens: int) -> Iterator[str]:
    with file.open(encoding="utf-8") as text:
        yield text.read(num_tokens * _CHARACTERS_PER_TOKEN)


def _json_lines(file: Path, num_tokens: int) -> Iterator[str]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"is not JSON: {error}", where=f"{file}: line {number}") from None
            text = found.get(_FIELD) if isinstance(found, Mapping) else found
            if not isinstance(text, str):
                raise ConfigError(
                    f"has no field {_FIELD!r} of text", where=f"{file}: line {number}",
                    hint='each line is {"text": "..."}',
                )  # fmt: skip
            yield text


def _parquet(file: Path, num_tokens: int) -> Iterator[str]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            "needs pyarrow",
            where=str(file),
            hint="pip install 'asterope[parquet]', or give JSON lines",
        ) from None
    with file.open("rb") as source:
        try:
            table = parquet.ParquetFile(source)
        except ValueError as error:
            raise ConfigError(f"is not Parquet: {error}", where=str(file)) from None
        if _FIELD not in table.schema_arrow.names:
            raise ConfigError(f"has no column {_FIELD!r}", where=str(file))
        for batch in table.iter_batches(batch_size=64, columns=[_FIELD]):
            yield from (text for text in batch.column(0).to_pylist() if isinstance(text, str))


_READERS: Mapping[str, Callable[[Path, int], Iterator[str]]] = {
    ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet,
}  # fmt: skip
