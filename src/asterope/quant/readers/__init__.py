"""Read the checkpoints of other tools: one reader a file, chosen by `quant_method`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from asterope.errors import CheckpointError
from asterope.quant.fields import look_up, mapping, refuse
from asterope.quant.readers.compressed import read_compressed
from asterope.quant.readers.fp8 import read_fbgemm_fp8, read_fp8
from asterope.quant.readers.layout import Layout, Reader
from asterope.quant.readers.modelopt import from_own_file, read_modelopt
from asterope.quant.readers.mxfp4 import read_mxfp4
from asterope.quant.readers.quark import read_quark
from asterope.quant.readers.torchao import read_torchao

__all__ = ["READERS", "Layout", "quantization_of", "read_layout"]

READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "compressed-tensors": read_compressed,
        "modelopt": read_modelopt,
        "fp8": read_fp8,
        "fbgemm_fp8": read_fbgemm_fp8,
        "quark": read_quark,
        "torchao": read_torchao,
        "mxfp4": read_mxfp4,
    }
)
"""By `quantization_config.quant_method`."""

_OWN_FILES = MappingProxyType({"hf_quant_config.json": from_own_file})
"""Files beside config.json that say what `quantization_config` would."""


def read_layout(config: Any) -> Layout:
    """Return how a checkpoint with that `quantization_config` is quantized.

    Raises: UnsupportedError for a valid configuration that cannot be read; CheckpointError for one
    that is not valid. Each names the field.
    """
    method = mapping(config, "quantization_config").get("quant_method")
    reader = look_up(READERS, method)
    if reader is None:
        refuse("quantization_config.quant_method", method, ", ".join(READERS))
    return reader(config)


def quantization_of(raw: Mapping[str, Any], directory: Path) -> Any:
    """Return the `quantization_config` of a checkpoint, from a file of its own if there is one.

    Raises: CheckpointError for a file that is not JSON; as `read_layout`.
    """
    stored = raw.get("quantization_config")
    for name, read in _OWN_FILES.items():
        path = directory / name
        if stored is None and path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise CheckpointError(f"cannot be read: {error}", where=str(path)) from None
            return read(mapping(content, name))
    return stored
