"""The text that models are scored on: a file, held-out library sources, or random tokens."""

from __future__ import annotations

import platform
import random
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asterope.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from asterope.api.language_model import LanguageModel

__all__ = ["DEFAULT_PROMPT", "HELD_OUT_MODULES", "ScoredText", "default_text", "text_of"]

HELD_OUT_MODULES = (
    "calendar.py",
    "cmd.py",
    "csv.py",
    "fnmatch.py",
    "fractions.py",
    "graphlib.py",
    "heapq.py",
    "html/parser.py",
    "http/cookies.py",
    "random.py",
    "shlex.py",
    "statistics.py",
    "textwrap.py",
    "timeit.py",
    "tomllib/_parser.py",
    "urllib/robotparser.py",
    "zipapp.py",
)
"""The modules that the shipped model was not trained on."""

DEFAULT_PROMPT = "class Queue:\n    def __init__(self, maxsize=0):\n"
_TOKENS_PER_MODULE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredText:
    """Tokens to score, and what they are in words."""

    what: str
    tokens: tuple[int, ...]
    is_random: bool = False


def text_of(
    model: LanguageModel, file: Path | None, *, max_tokens: int, seed: int = 0
) -> ScoredText:
    """Return what to score a model on: the file, else `default_text`.

    Raises: ConfigError if the file cannot be read, or holds fewer than two tokens; CheckpointError
    if there is a file but no tokenizer.
    """
    if max_tokens < 2:
        raise ConfigError(f"{max_tokens} tokens are too few to score", where="max_tokens")
    if file is None:
        return default_text(model, max_tokens=max_tokens, seed=seed)
    try:
        text = file.expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ConfigError(f"cannot be read: {reason}", where=str(file)) from None
    tokens = model.encode(text)
    if len(tokens) < 2:
        raise ConfigError(f"{len(tokens)} tokens are too few to score", where=str(file))
    kept = tuple(tokens[:max_tokens])
    part = "all" if len(kept) == len(tokens) else "the first"
    return ScoredText(what=f"{part} {len(kept):,} tokens of {file}", tokens=kept)


def default_text(model: LanguageModel, *, max_tokens: int, seed: int = 0) -> ScoredText:
    """Return tokens of held-out standard-library sources; random ones without a tokenizer.

    Raises: CheckpointError if this Python has none of the modules as source.
    """
    if model.tokenizer is None:
        drawn = random.Random(seed).choices(range(model.config.vocab_size), k=max_tokens)
        what = f"{max_tokens:,} random tokens (seed {seed}): the checkpoint has no tokenizer"
        return ScoredText(what=what, tokens=tuple(drawn), is_random=True)
    share = max(_TOKENS_PER_MODULE, -(-max_tokens // len(HELD_OUT_MODULES)))
    root = Path(sysconfig.get_paths()["stdlib"])
    tokens: list[int] = []
    used: list[str] = []
    for name in HELD_OUT_MODULES:
        if len(tokens) < max_tokens and (root / name).is_file():
            tokens += model.encode((root / name).read_text(encoding="utf-8"))[:share]
            used.append(name)
    if len(tokens) < 2:
        raise CheckpointError(
            "this Python has no standard-library sources to score", where=str(root),
            hint="give a text: --text FILE",
        )  # fmt: skip
    kept = tuple(tokens[:max_tokens])
    each = f"the first {share:,} each of " if len(used) > 1 else "the first of "
    what = (
        f"{len(kept):,} tokens of Python {platform.python_version()}'s own sources,"
        f" {each}{', '.join(used)}"
    )
    return ScoredText(what=what, tokens=kept)
