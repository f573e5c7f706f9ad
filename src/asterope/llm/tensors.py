"""Read safetensors files of a checkpoint directory; never unpickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from asterope.errors import CheckpointError
from asterope.llm.packed_experts import one_by_one

__all__ = ["TensorFiles", "open_tensors"]

_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class TensorFiles:
    """The tensors of a checkpoint by name, read when asked for and checked when read."""

    def __init__(
        self, directory: Path, files: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        self.directory = directory
        self.metadata = metadata
        self._files = files
        self._below: dict[str, list[str]] = {}
        for name in files:
            parts = name.split(".")
            for end in range(1, len(parts)):
                self._below.setdefault(".".join(parts[:end]), []).append(name)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def names(self) -> tuple[str, ...]:
        """Names of all tensors."""
        return tuple(self._files)

    def below(self, module: str) -> tuple[str, ...]:
        """Names of the tensors of a module and of those inside it."""
        return tuple(self._below.get(module, ()))

    def raw(self, name: str) -> torch.Tensor:
        """Return a tensor as it is stored.

        Raises: CheckpointError if it is missing or its file is damaged.
        """
        if name not in self._files:
            raise CheckpointError(
                f"tensor {name} is missing", where=str(self.directory), hint=self._nearest(name)
            )
        try:
            tensor: torch.Tensor = self._files[name].get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise CheckpointError(
                f"tensor {name} cannot be read: {error}", where=str(self.directory)
            ) from None
        return tensor

    def get(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Return a tensor of a known shape, every value finite, in `dtype`.

        Raises: CheckpointError naming the tensor if it is missing, misshapen, codes of something
        quantized, NaN or infinite.
        """
        tensor = self.raw(name)
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"tensor {name} has shape {list(tensor.shape)}, config.json asks for {list(shape)}",
                where=str(self.directory),
            )
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"tensor {name} is {str(tensor.dtype).removeprefix('torch.')}, not floating point",
                where=str(self.directory),
            )
        if tensor.dtype.itemsize == 1:
            raise CheckpointError(
                f"tensor {name} is {str(tensor.dtype).removeprefix('torch.')} codes, of a layer "
                "that is not quantized by config.json",
                where=str(self.directory), hint="its quantization_config may be that of another",
            )  # fmt: skip
        found = _first_not_finite(tensor)
        if found:
            raise CheckpointError(
                f"tensor {name} is {found}", where=str(self.directory),
                hint="the checkpoint is damaged or its training diverged",
            )  # fmt: skip
        if dtype in (None, tensor.dtype):
            return tensor
        converted = tensor.to(dtype)
        found = _first_not_finite(converted)
        if found:
            raise CheckpointError(
                f"tensor {name} is {found} in {str(dtype).removeprefix('torch.')}",
                where=str(self.directory), hint="compute in bfloat16 or float32",
            )  # fmt: skip
        return converted

    def _nearest(self, name: str) -> str:
        prefix = name.rsplit(".", 2)[0]
        near = [n for n in self._files if n.startswith(prefix)][:3]
        return (
            f"nearby: {', '.join(near)}" if near else f"the files hold {len(self._files)} tensors"
        )


def _first_not_finite(tensor: torch.Tensor) -> str:
    """Return what the first value that is not finite is, and where; nothing if there is none."""
    if bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all()):
        return ""
    at = [int(i) for i in torch.nonzero(~torch.isfinite(tensor))[0]]
    kind = "NaN" if bool(torch.isnan(tensor[tuple(at)])) else "infinite"
    return f"{kind} at {at}"


@contextmanager
def open_tensors(directory: Path) -> Iterator[TensorFiles]:
    """Open all safetensors files of a checkpoint directory.

    Raises: CheckpointError if there is none (pickles are refused by name), a shard is missing, or
    a file is truncated.
    """
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        metadata: dict[str, str] = {}
        for path in _paths(directory):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
                files.update(dict.fromkeys(file.keys(), file))
                metadata.update(file.metadata() or {})
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"is not a whole safetensors file: {error}", where=str(path),
                    hint="download it again",
                ) from None  # fmt: skip
        yield TensorFiles(directory, one_by_one(files), metadata)


def _paths(directory: Path) -> list[Path]:
    index, whole = directory / _INDEX, directory / _WHOLE
    if index.is_file():
        return _sharded(directory, index)
    if whole.is_file():
        return [whole]
    found = sorted(directory.glob("*.safetensors"))
    if found:
        return found
    pickles = sorted(p for pattern in _PICKLES for p in directory.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{pickles[0].name} is a pickle, which can run code when it is read",
            where=str(directory),
            hint="where you trust it, load it and save it with safe_serialization=True",
        )
    raise CheckpointError("there is no .safetensors file", where=str(directory))


def _sharded(directory: Path, index: Path) -> list[Path]:
    """Return the files that an index names; only those that lie in the directory itself."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(index)) from None
    places = content.get("weight_map") if isinstance(content, dict) else None
    if (
        not isinstance(places, dict)
        or not places
        or not all(isinstance(name, str) for name in places.values())
    ):
        raise CheckpointError(
            "has no weight_map from names of tensors to names of files", where=str(index),
            hint="download it again",
        )  # fmt: skip
    there = {path.name for path in directory.iterdir() if path.is_file()}
    names = sorted(set(places.values()))
    for name in names:
        if name not in there:
            raise CheckpointError(
                f"shard {name[:200]} is missing", where=str(index), hint="download it again"
            )
    return [directory / name for name in names]
