"""A step of a transformer on a node of GPUs: its operators one after the other, cut over chips.

A step takes one new token of each running sequence and chunks of prompts, in one pass. Heads, the
columns of one projection and the rows of the next, or whole experts are shared out (tensor and
expert parallelism); after attention and after the feed-forward part every chip gets the sum. Steps
of new tokens alone are recorded as one graph of kernels; in steps with prompts the host launches.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from asterope.chips import Chip
from asterope.errors import ConfigError
from asterope.operators.attention import Heads, LatentHeads, attention_decode, attention_prefill
from asterope.operators.collectives import collective
from asterope.operators.elementwise import elementwise
from asterope.operators.experts import expert_loads, experts
from asterope.operators.products import gemm
from asterope.operators.timing import OperatorTime, check_sizes, timed
from asterope.operators.transformer import (
    Execution,
    MixtureOfExperts,
    Parallel,
    Precision,
    Transformer,
    shared_heads,
)

__all__ = ["Chunk", "decode_step", "mixed_step", "prefill_step"]

_UNROUNDED_BITS = 16

_PRECISION, _PARALLEL, _EXECUTION = Precision(), Parallel(), Execution()

_Named = tuple[str, float, OperatorTime]
"""A part of a step, how often it runs, and one run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A piece of a prompt that a step reads: new tokens, after so many that are cached."""

    tokens: int
    context: int = 0


def decode_step(
    chip: Chip, model: Transformer, *, batch: int, context: int,
    precision: Precision = _PRECISION, parallel: Parallel = _PARALLEL,
    execution: Execution = _EXECUTION,
) -> OperatorTime:  # fmt: skip
    """Time the step that makes one token for each of `batch` sequences of `context` tokens.

    Raises: ConfigError for sizes below one, or if the heads cannot be shared out.
    """
    check_sizes(batch=batch, context=context)
    return mixed_step(
        chip, model, batch=batch, context=context, precision=precision, parallel=parallel,
        execution=execution,
    )  # fmt: skip


def prefill_step(
    chip: Chip, model: Transformer, *, batch: int, tokens: int, context: int = 0,
    precision: Precision = _PRECISION, parallel: Parallel = _PARALLEL,
    execution: Execution = _EXECUTION,
) -> OperatorTime:  # fmt: skip
    """Time the step that reads `batch` chunks of `tokens` tokens, each after `context` cached ones.

    Raises: ConfigError for sizes below one, or if the heads cannot be shared out.
    """
    check_sizes(batch=batch, tokens=tokens)
    chunks = (Chunk(tokens=tokens, context=context),) * batch
    return mixed_step(
        chip, model, prefill=chunks, precision=precision, parallel=parallel, execution=execution
    )


def mixed_step(
    chip: Chip, model: Transformer, *, prefill: Sequence[Chunk] = (), batch: int = 0,
    context: int = 0, precision: Precision = _PRECISION, parallel: Parallel = _PARALLEL,
    execution: Execution = _EXECUTION,
) -> OperatorTime:  # fmt: skip
    """Time one step: chunks of prompts, and a token for each of `batch` sequences of `context`.

    `context` is the mean of the running sequences. Products see the rows of both at once;
    attention is a kernel for either.

    Raises: ConfigError for a step without a token, sizes below one, or heads that cannot be shared.
    """
    read = sum(chunk.tokens for chunk in prefill)
    if read + batch < 1:
        raise ConfigError("a step needs a token", where="prefill", hint="or a batch of sequences")
    shared = shared_heads(model.heads, parallel.tensor)
    run = [
        *_attention(chip, model, shared, prefill, batch, context),
        *_around_attention(chip, model, shared, prefill, batch, precision, execution),
        *_feed_forward(chip, model, read + batch, precision, parallel, execution),
        *_sums(chip, model, read + batch, parallel, execution),
    ]
    sampled = batch + len(prefill)
    width = model.vocab_size // parallel.tensor
    head = gemm(chip, sampled, width, model.hidden_size, rate="bf16", bits=(16, 16))
    run.append(("head", 1, head))
    return _joined(run, model.num_layers if prefill else 0, parallel, execution)


def _joined(
    run: Sequence[_Named], launched_layers: int, parallel: Parallel, execution: Execution
) -> OperatorTime:
    """Add up a step; a host that launches its layers may be the slower of the two."""
    parts: dict[str, float] = {}
    for name, times, operator in run:
        parts[name] = parts.get(name, 0.0) + times * operator.time_s
    if execution.gap_s:
        parts["gaps"] = execution.gap_s * sum(times for _, times, _ in run)
    waited_s = launched_layers * execution.host_layer_s - sum(parts.values())
    if waited_s > 0:
        parts["host"] = waited_s
    return timed(
        parts,
        flop=sum(times * operator.flop for _, times, operator in run),
        hbm_bytes=sum(times * operator.hbm_bytes for _, times, operator in run),
        mapping=f"{parallel.tensor} x tensor, {parallel.expert} x expert parallel",
    )


def _attention(
    chip: Chip, model: Transformer, heads: Heads | LatentHeads, prefill: Sequence[Chunk],
    batch: int, context: int,
) -> Iterator[_Named]:  # fmt: skip
    """Yield attention of the layers of each window."""
    absorbed = heads
    if isinstance(heads, LatentHeads):
        absorbed = dataclasses.replace(heads, absorbed=True)
    for window, layers in model.layers_by_window().items():
        if batch:
            keys = min(context, window or context)
            yield "attention", layers, attention_decode(chip, absorbed, batch=batch, keys=keys)
        for chunk, count in Counter(prefill).items():
            found = attention_prefill(
                chip, heads, batch=count, queries=chunk.tokens, context=chunk.context, window=window
            )
            yield "attention", layers, found


def _around_attention(
    chip: Chip, model: Transformer, heads: Heads | LatentHeads, prefill: Sequence[Chunk],
    batch: int, precision: Precision, execution: Execution,
) -> Iterator[_Named]:  # fmt: skip
    """Yield the projections before and after attention, the rotation and both norms."""
    layers, hidden = model.num_layers, model.hidden_size
    rows = batch + sum(chunk.tokens for chunk in prefill)
    rounds = _rounds(precision, execution)

    def product(n: int, k: int, m: int = rows) -> _Named:
        return "products", layers, _product(chip, m, n, k, precision, rounds=rounds)

    if isinstance(heads, LatentHeads):
        yield product(heads.query_latent + heads.latent + heads.rope, hidden)
        width = heads.query * (heads.nope + heads.rope)
        yield product(width, heads.query_latent or hidden)
        if batch:  # queries into the latent space, and values out of it
            yield product(heads.query * heads.latent, heads.nope, batch)
            yield product(heads.query * heads.value, heads.latent, batch)
        for chunk in prefill:  # keys and values of what is cached are expanded again
            expanded = heads.query * (heads.nope + heads.value)
            yield product(expanded, heads.latent, chunk.tokens + chunk.context)
        output = heads.query * heads.value
    else:
        width = (heads.query + 2 * heads.key_value) * heads.dim
        if execution.fused_projections:
            yield product(width, hidden)
        else:
            yield product(heads.query * heads.dim, hidden)
            for _ in range(2):
                yield product(heads.key_value * heads.dim, hidden)
        output = heads.query * heads.dim
        if model.head_norms and not execution.fused_head_norms:
            for number in (heads.query, heads.key_value):
                norm = elementwise(chip, rows * number * heads.dim * 4)
                yield "elementwise", layers, norm
    yield "elementwise", layers, elementwise(chip, rows * width * 4)  # rotation
    yield product(hidden, output)
    if execution.fused_norms:
        yield "elementwise", 2 * layers, elementwise(chip, rows * hidden * 6)
    else:
        yield "elementwise", 2 * layers, elementwise(chip, rows * hidden * 6)  # sum
        yield "elementwise", 2 * layers, elementwise(chip, rows * hidden * 4)  # norm


def _feed_forward(
    chip: Chip, model: Transformer, rows: int, precision: Precision, parallel: Parallel,
    execution: Execution,
) -> Iterator[_Named]:  # fmt: skip
    """Yield feed-forward parts, and experts where there are."""
    dense = model.num_layers - model.num_moe_layers
    if dense:
        yield from _dense(
            chip, model, dense, model.intermediate_size, rows, precision, parallel, execution
        )
    if model.moe is None:
        return
    layers, hidden = model.num_moe_layers, model.hidden_size
    if model.moe.shared_intermediate:
        width = model.moe.shared_intermediate
        yield from _dense(chip, model, layers, width, rows, precision, parallel, execution)
    router = gemm(chip, rows, model.moe.num_experts, hidden, rate="bf16", bits=(16, 16))
    yield "products", layers, router
    yield "experts", layers, _experts(chip, model.moe, hidden, rows, precision, parallel)


def _dense(
    chip: Chip, model: Transformer, layers: int, intermediate: int, rows: int,
    precision: Precision, parallel: Parallel, execution: Execution,
) -> Iterator[_Named]:  # fmt: skip
    hidden, inner = model.hidden_size, intermediate // parallel.tensor
    rounds, parts = _rounds(precision, execution), 1 if execution.fused_projections else 2
    wide = _product(chip, rows, 2 * inner // parts, hidden, precision, rounds=rounds)
    yield "products", layers * parts, wide
    yield "elementwise", layers, elementwise(chip, rows * inner * 6)  # activation
    yield "products", layers, _product(chip, rows, hidden, inner, precision, rounds=rounds)


def _rounds(precision: Precision, execution: Execution) -> bool:
    return precision.a_bits < _UNROUNDED_BITS and not execution.fused_rounding


def _product(
    chip: Chip, m: int, n: int, k: int, precision: Precision, *, rounds: bool
) -> OperatorTime:
    bits = (precision.a_bits, precision.b_bits)
    return gemm(
        chip, m, n, k, rate=precision.rate, bits=bits, quantizes=rounds,
        block_scaled=precision.block_scaled,
    )  # fmt: skip


def _experts(
    chip: Chip, moe: MixtureOfExperts, hidden: int, rows: int, precision: Precision,
    parallel: Parallel,
) -> OperatorTime:  # fmt: skip
    loads = expert_loads(
        moe.num_experts, moe.top_k, rows, ranks=parallel.expert, skew=moe.skew, random=moe.random
    )
    inner = moe.intermediate_size // max(1, parallel.tensor // parallel.expert)
    bits = (precision.moe_a_bits or precision.a_bits, precision.moe_bits or precision.b_bits)
    return experts(
        chip, loads, hidden, inner, rate=precision.moe_rate or precision.rate, bits=bits,
        block_scaled=precision.block_scaled, tokens=rows,
    )  # fmt: skip


def _sums(
    chip: Chip, model: Transformer, rows: int, parallel: Parallel, execution: Execution
) -> Iterator[_Named]:
    """Yield the sums over chips, two a layer, less what hides behind the products after them."""
    if parallel.tensor < 2:
        return
    num_bytes = rows * model.hidden_size * 2
    one = collective(chip, "all_reduce", num_bytes, parallel.tensor, fused=True)
    yield "all_reduce", 2 * model.num_layers * (1 - execution.hidden_all_reduce), one
