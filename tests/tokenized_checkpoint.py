"""A small random checkpoint that reads text: byte tokens, so that no tokenizer is trained."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from llm_checkpoints import raw_config, write_checkpoint

__all__ = ["SMALL", "write_tokenized"]

SMALL = raw_config(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=128,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_hidden_layers=1,
)


def write_tokenized(directory, raw=SMALL, **options):
    """Write a checkpoint whose tokens are the bytes of the text; return the directory."""
    write_checkpoint(directory, raw, **options)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory
