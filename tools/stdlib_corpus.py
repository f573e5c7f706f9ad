"""Read the Python standard library's own sources and train a tokenizer on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from asterope.api import HELD_OUT_MODULES
from asterope.errors import ConfigError

BOS = "<|bos|>"
# Installed packages and tests, which not every Python has, and generated tables.
SKIPPED = {
    "site-packages",
    "dist-packages",
    "__pycache__",
    "test",
    "tests",
    "idle_test",
    "encodings",
    "pydoc_data",
}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Module sources by name, split."""

    train: dict[str, str]
    held_out: dict[str, str]

    def describe(self) -> dict[str, Any]:
        """Measure size, identity, and the share of held-out long lines also seen in training."""
        digest = hashlib.sha256()
        for name, text in sorted((self.train | self.held_out).items()):
            digest.update(f"{name}\0{text}\0".encode())
        seen = {line.strip() for text in self.train.values() for line in text.splitlines()}
        lines = [line.strip() for text in self.held_out.values() for line in text.splitlines()]
        long_lines = [line for line in lines if len(line) >= 24]
        return {
            "train_files": len(self.train),
            "train_bytes": sum(len(text.encode()) for text in self.train.values()),
            "held_out_bytes": sum(len(text.encode()) for text in self.held_out.values()),
            "sha256": digest.hexdigest(),
            "overlap": sum(line in seen for line in long_lines) / max(1, len(long_lines)),
        }


def read_corpus(root: Path) -> Corpus:
    """Read the modules under `root` in the order of their names."""
    train: dict[str, str] = {}
    held_out: dict[str, str] = {}
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    for name in names:
        # _sysconfigdata holds the paths of the machine that built this Python.
        if SKIPPED.isdisjoint(name.split("/")) and not name.startswith("_sysconfigdata"):
            part = held_out if name in HELD_OUT_MODULES else train
            part[name] = (root / name).read_text("utf-8")
    if not train or not held_out:
        raise ConfigError(
            f"{len(train)} modules to train on and {len(held_out)} to hold out; both are needed",
            where=str(root),
            hint="--corpus is the folder of a standard library, with json/ and heapq.py in it",
        )
    return Corpus(train=train, held_out=held_out)


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE that opens every document with the token `BOS`, number 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, 0)]
    )
    return tokenizer
