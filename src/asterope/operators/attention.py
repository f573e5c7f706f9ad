"""Attention as fused kernels run it: blocks of queries in prefill, splits of the keys in decode."""

from __future__ import annotations

import math
from dataclasses import dataclass

from asterope.chips import Chip
from asterope.errors import ConfigError
from asterope.operators.timing import (
    OperatorTime,
    achieved,
    check_sizes,
    num_cores,
    overlapped,
    peak_flop_per_s,
    share,
    timed,
)

__all__ = ["Heads", "LatentHeads", "attention_decode", "attention_prefill"]

_ROWS = 128
_PROGRAMS_PER_CORE = 8
_LEAST_KEYS = 128
"""A sequence's keys are split until each core has so many programs, or a program so few keys.

Source: computeMultiBlockCount of TensorRT-LLM's decoderXQAImplCommon.cpp; other libraries alike."""
_KERNELS = 2
"""The kernel, and the one before it that writes the cache; one more joins splits. What reads a
narrow cache for several queries a head writes it too."""
_NARROW_BITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """Query heads that share key and value heads (GQA); as many of each is MHA.

    `tied` values are the keys themselves. Queries that share a head take both piece by piece and
    read them from memory once; a kernel of heads of their own reads all keys, then all values.
    """

    query: int
    key_value: int
    dim: int
    cache_bits: float = 16
    tied: bool = False

    @property
    def flop_per_pair(self) -> float:
        """Count the operations of one query and one key, over all query heads."""
        return 4.0 * self.query * self.dim

    @property
    def cache_bytes_per_key(self) -> float:
        """Count the bytes read for one key and its value."""
        parts = 1 if self.tied and self.query > self.key_value else 2
        return parts * self.key_value * self.dim * self.cache_bits / 8

    @property
    def io_bytes_per_query(self) -> float:
        """Count the bytes of one query and its output."""
        return 2 * 2.0 * self.query * self.dim


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentHeads:
    """Heads over one latent vector a token (MLA), absorbed in decode, expanded in prefill."""

    query: int
    latent: int = 512
    rope: int = 64
    nope: int = 128
    value: int = 128
    cache_bits: float = 16
    absorbed: bool = False
    query_latent: int = 0  # 0: queries are projected without a latent vector of their own

    @property
    def key_value(self) -> int:
        """Count the heads that are read from memory."""
        return 1 if self.absorbed else self.query

    @property
    def flop_per_pair(self) -> float:
        """Count the operations of one query and one key, over all query heads."""
        if self.absorbed:
            return 2.0 * self.query * (2 * self.latent + self.rope)
        return 2.0 * self.query * (self.nope + self.rope + self.value)

    @property
    def cache_bytes_per_key(self) -> float:
        """Count the bytes read for one key and its value."""
        if self.absorbed:
            return (self.latent + self.rope) * self.cache_bits / 8
        return self.query * (self.nope + self.rope + self.value) * 2.0

    @property
    def io_bytes_per_query(self) -> float:
        """Count the bytes of one query and its output."""
        if self.absorbed:
            return 2.0 * self.query * (2 * self.latent + self.rope)
        return 2.0 * self.query * (self.nope + self.rope + self.value)


def attention_prefill(
    chip: Chip, heads: Heads | LatentHeads, *, batch: int, queries: int, context: int = 0,
    rate: str = "bf16", window: int | None = None,
) -> OperatorTime:  # fmt: skip
    """Time causal attention of `batch` chunks of `queries` tokens.

    A chunk looks at the keys of the `context` tokens before it, which are cached, and at itself.
    With a `window` a token looks at so many keys, itself included.

    Raises: ConfigError for sizes below one; ChipError if the chip has no calibrated operators.
    """
    check_sizes(batch=batch, queries=queries, window=1 if window is None else window)
    if context < 0:
        raise ConfigError(f"{context} is below 0", where="context")
    reach, cores = achieved(chip), num_cores(chip)
    blocks, cached = math.ceil(queries / _ROWS), math.ceil(context / _ROWS)
    pair_flop = heads.flop_per_pair / heads.query * _ROWS * min(_ROWS, max(queries, 1))
    core_flop_per_s = peak_flop_per_s(chip, rate) * share(reach.attention_fraction, rate) / cores
    pair_s = pair_flop / core_flop_per_s
    programs = batch * heads.query
    seen = min(context + queries, window or context + queries)
    widest = min(cached + blocks, math.ceil(seen / _ROWS) + 1)
    growing = max(0, min(blocks, widest - cached))  # blocks that see one more than the one before
    pairs = programs * (
        growing * cached + growing * (growing + 1) / 2 + (blocks - growing) * widest
    )
    even_s = pairs * pair_s / cores + math.ceil(programs * blocks / cores) * reach.attention_block_s
    longest_s = widest * pair_s + reach.attention_block_s
    tensor_s = max(even_s, longest_s)
    read = min(context, seen)  # cached keys in reach of some query
    hbm_bytes = batch * (
        queries * (heads.io_bytes_per_query + heads.cache_bytes_per_key)
        + read * heads.cache_bytes_per_key
    )
    hbm_s = hbm_bytes / (chip.hbm.bandwidth_bytes_per_s * reach.hbm_fraction)
    parts = {"launch": _KERNELS * reach.kernel_s, **overlapped(tensor_s, hbm_s)}
    rising = max(0, min(queries, seen - context))  # queries that see one key more than the last
    looked = rising * context + rising * (rising + 1) / 2 + (queries - rising) * seen
    words = f"{programs * blocks} blocks of {_ROWS} queries over {cores} cores"
    flop = batch * heads.flop_per_pair * looked
    return timed(parts, flop=flop, hbm_bytes=hbm_bytes, mapping=words)


def attention_decode(
    chip: Chip, heads: Heads | LatentHeads, *, batch: int, keys: int, rate: str = "bf16"
) -> OperatorTime:
    """Time attention of one new token in each of `batch` sequences over `keys` cached ones.

    A program takes one key and value head of one sequence, or a split of its keys where programs
    are few. Where several queries share a head it also waits, for their first keys and to join what
    they found, longer than others cover.

    Raises: ConfigError for sizes below one; ChipError if the chip has no calibrated operators.
    """
    check_sizes(batch=batch, keys=keys)
    reach, cores = achieved(chip), num_cores(chip)
    hbm_bytes = batch * (keys * heads.cache_bytes_per_key + heads.io_bytes_per_query)
    hbm_s = hbm_bytes / (chip.hbm.bandwidth_bytes_per_s * reach.cache_fraction)
    core_bytes_per_s = chip.hbm.bandwidth_bytes_per_s / cores * reach.core_share
    flop = batch * keys * heads.flop_per_pair
    tensor_s = flop / (peak_flop_per_s(chip, rate) * share(reach.attention_fraction, rate))
    rows = batch * heads.key_value
    splits = max(1, min(keys // _LEAST_KEYS, _PROGRAMS_PER_CORE * cores // rows))
    program_bytes = math.ceil(keys / splits) * heads.cache_bytes_per_key / heads.key_value
    stream_s = max(hbm_s, program_bytes / core_bytes_per_s)
    cache = "fp8" if heads.cache_bits <= _NARROW_BITS else "bf16"
    grouped = heads.query > heads.key_value
    if grouped:
        stream_s += max(1.0, rows * splits / cores) * share(reach.program_s, cache)
    writes = grouped and cache == "fp8" and isinstance(heads, Heads)
    kernels = _KERNELS - writes + (splits > 1)
    parts = {"launch": kernels * reach.kernel_s, **overlapped(tensor_s, stream_s)}
    words = f"{rows} rows of keys, each in {splits} part{'s' * (splits > 1)}"
    return timed(parts, flop=flop, hbm_bytes=hbm_bytes, mapping=words)
