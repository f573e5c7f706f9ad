"""What a user means by a model: a checkpoint directory, a config.json, or a published name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from asterope.errors import CheckpointError, ConfigError, FormatError
from asterope.llm import (
    ModelConfig,
    module_names,
    published_config,
    published_model,
    read_checkpoint_config,
    stored_layout,
)
from asterope.quant import UNQUANTIZED, Layout, Plan, Scheme
from asterope.quant import scheme as parse_scheme

__all__ = [
    "DEFAULT_FORMAT",
    "SHIPPED_NAME",
    "Source",
    "checkpoint_directory",
    "find_source",
    "read_scheme",
    "resolve_scheme",
    "shipped_model",
]

DEFAULT_FORMAT = "mxfp4"
SHIPPED_NAME = "stdlib-llama"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a configuration comes from; `directory` is that of the weights, if there are any."""

    name: str
    where: str
    config: Mapping[str, Any]
    directory: Path | None = None

    @property
    def stored_scheme(self) -> Plan | None:
        """How a checkpoint that is already quantized is, None for an original."""
        layout = self._layout
        if layout is None:
            return None
        config = ModelConfig.from_dict(self.config, where=self.where)
        return layout.plan(config.num_layers, module_names(config))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a quantized checkpoint holds that is not used."""
        layout = self._layout
        return layout.notes if layout else ()

    @property
    def cache_format(self) -> str:
        """In which format a checkpoint says that its KV cache is; `auto` if it says nothing."""
        layout = self._layout
        return "auto" if layout is None else layout.cache_format

    @property
    def _layout(self) -> Layout | None:
        return stored_layout(self.config, where=self.where)


def shipped_model() -> Path:
    """Return the directory of the small language model that ships with Asterope.

    Raises: CheckpointError if this installation was made without it.
    """
    directory = Path(str(resources.files("asterope.llm"))) / "data" / SHIPPED_NAME
    if not (directory / "config.json").is_file():
        raise CheckpointError(
            "no model ships with this installation", where=str(directory),
            hint="give a Hugging Face checkpoint directory",
        )  # fmt: skip
    return directory


def checkpoint_directory(model: str | Path) -> Path:
    """Return the directory that a user's words mean; `stdlib-llama` is the shipped model.

    Raises: CheckpointError if this installation was made without it.
    """
    path = Path(model).expanduser()
    return shipped_model() if str(model) == SHIPPED_NAME and not path.exists() else path


def find_source(model: str | Path) -> Source:
    """Find the configuration that a user's words mean.

    Raises: CheckpointError for a directory or file that holds none; ConfigError, with the nearest
    name, for a name that is not published.
    """
    path = checkpoint_directory(model)
    if path.is_dir():
        name = path.resolve().name
        config = read_checkpoint_config(path)
        return Source(name=name, where=str(path), config=config, directory=path)
    if path.is_file():
        return _config_file(path)
    if "/" in str(model) and not _is_published(str(model)):
        raise CheckpointError(
            "there is no such directory or file",
            where=str(model),
            hint="give a checkpoint directory, a config.json, or a name of `asterope models`",
        )
    if path.suffix == ".json":
        raise CheckpointError("there is no such file", where=str(model))
    name = published_model(str(model)).name
    return Source(name=name, where=name, config=published_config(name))


def _is_published(name: str) -> bool:
    try:
        published_model(name)
    except ConfigError:
        return False
    return True


def _config_file(path: Path) -> Source:
    hint = "give a checkpoint directory, a config.json, or a published name"
    if path.suffix != ".json":
        raise CheckpointError("is not a directory or a config.json", where=str(path), hint=hint)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(raw, dict):
        raise CheckpointError("holds no JSON object", where=str(path), hint=hint)
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    return Source(name=name, where=str(path), config=raw)


def read_scheme(
    fmt: str | None, *, activations: str | None = None, rule: str | None = None
) -> Scheme:
    """Read a format as people write it, the default where none is given.

    Raises: FormatError with the nearest name.
    """
    text = fmt or DEFAULT_FORMAT
    try:
        return parse_scheme(text, activations=None if "/" in text else activations, rule=rule)
    except FormatError as error:
        field = {"weights": "format"}.get(error.where, error.where)
        raise FormatError(error.what, where=field, hint=error.hint) from None


def resolve_scheme(
    fmt: str | None, *, activations: str | None = None, rule: str | None = None
) -> Scheme | None:
    """Read a format as `read_scheme` does; None for unquantized."""
    found = read_scheme(fmt, activations=activations, rule=rule)
    return None if found.weights == UNQUANTIZED else found
