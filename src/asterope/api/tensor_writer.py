"""Write a safetensors file tensor by tensor, none of them held."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import MappingProxyType

import torch

__all__ = ["TensorWriter", "digest"]

_NAMES = MappingProxyType({
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e8m0fnu: "F8_E8M0",
})  # fmt: skip
_SIZES = (4, 2, 1)  # in this order, each number lies at a multiple of its size
_ALIGNMENT = 8
_COPIED_BYTES = 1 << 20


class TensorWriter:
    """Tensors go to one file for each size of number beside the place; `close` joins them there.

    `digests` holds what each tensor was.

    Cost: what is written is copied once.
    """

    def __init__(self, path: Path) -> None:
        self.digests: dict[str, bytes] = {}
        self._path = path
        self._parts = {size: path.with_name(f"{path.name}.{size}") for size in _SIZES}
        self._entries: dict[int, dict[str, tuple[str, list[int], int]]] = {n: {} for n in _SIZES}

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Write a tensor.

        Raises: OSError if it cannot be written.
        """
        data = _bytes(tensor)
        with self._parts[tensor.element_size()].open("ab") as file:
            file.write(data.numpy().data)
        shape = list(tensor.shape)
        self._entries[tensor.element_size()][name] = _NAMES[tensor.dtype], shape, len(data)
        self.digests[name] = digest(tensor)

    def close(self) -> None:
        """Join what was added.

        Raises: OSError if it cannot be written.
        """
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for size in _SIZES:
            for name, (kind, shape, length) in self._entries[size].items():
                header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + length]}
                end += length
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        with self._path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for part in self._parts.values():
                if part.exists():
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, file, _COPIED_BYTES)
                    part.unlink()


def digest(tensor: torch.Tensor) -> bytes:
    """Return what tells a tensor from any other: of its type, shape and bits."""
    found = hashlib.blake2b(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    found.update(_bytes(tensor).numpy().data)
    return found.digest()


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
