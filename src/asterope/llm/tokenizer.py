"""Text to tokens and back, by the checkpoint's tokenizer.json."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer as _Tokenizer

from asterope.errors import CheckpointError

__all__ = ["Tokenizer", "load_tokenizer"]


class Tokenizer:
    """A fast tokenizer of a checkpoint."""

    def __init__(self, inner: _Tokenizer) -> None:
        self._inner = inner

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the token ids of a text; with `special`, those that open documents too."""
        ids: list[int] = self._inner.encode(text, add_special_tokens=special).ids
        return ids

    def decode(self, tokens: list[int]) -> str:
        """Return the text of token ids."""
        text: str = self._inner.decode(tokens, skip_special_tokens=True)
        return text

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        size: int = self._inner.get_vocab_size()
        return size


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """Load tokenizer.json of a checkpoint directory.

    Raises: CheckpointError if it is missing or cannot be read.
    """
    path = Path(directory) / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError("there is no tokenizer.json", where=str(directory))
    try:
        return Tokenizer(_Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises bare Exception for every defect of the file
        raise CheckpointError(f"cannot be read: {error}", where=str(path)) from None
