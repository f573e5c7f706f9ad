"""One program of attention over keys and values in E2M1, with a scale for each block of a head.

The tensor unit takes the codes of keys with their scales, which it sums along. Those of values
change along what stays: they are widened before it, codes in low halves of bytes apart from those
in high ones. The order of sums is that of `attend_rows` over the same numbers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from asterope.kernels.attend_rows import entries, page_of_each, softened, span, store_rows, sunk
from asterope.kernels.block_codes import widened_pairs

__all__ = ["attend_blocks"]


@triton.jit
def _of_keys(
    source, at, start, lies, last, SIZE: tl.constexpr, WIDTH: tl.constexpr, PAGE: tl.constexpr,
    KEYS: tl.constexpr,
):  # fmt: skip
    """Return SIZE bytes of each key, codes or scales, and zeros up to WIDTH."""
    if PAGE == 0 and WIDTH == SIZE:  # those of all keys lie in one piece
        offs = tl.arange(0, KEYS * SIZE)
        on = offs < (last + 1 - start) * SIZE
        found = tl.load(source + at + start * SIZE + offs, mask=on, other=0.0)
        found = tl.reshape(found, (KEYS, SIZE))
    else:
        offs = tl.arange(0, WIDTH)[None, :]
        on = (start + tl.arange(0, KEYS) <= last)[:, None] & (offs < SIZE)
        found = tl.load(source + at + lies[:, None] + offs, mask=on, other=0.0)
    return found


@triton.jit
def _scores(query, k, scales):
    """Return the products of queries and keys; for fp32 queries, keys are widened before."""
    if query.dtype == tl.float32:
        low, high = widened_pairs(k, scales, tl.float32)
        wide = tl.reshape(tl.join(low, high), (k.shape[0], 2 * k.shape[1]))
        score = tl.dot(query, tl.trans(wide))
    elif query.dtype == tl.float16:
        score = tl.dot_scaled(query, None, "fp16", tl.trans(k), scales, "e2m1")
    else:
        score = tl.dot_scaled(query, None, "bf16", tl.trans(k), scales, "e2m1")
    return score


@triton.jit
def attend_blocks(
    q, k_cache, k_scales, v_cache, v_scales, table, out, bests, totals, scale, v_scale, first_row,
    tokens, past, window, cache, stride_token, stride_page, stride_part, head,
    Q_HEADS: tl.constexpr, SHARE: tl.constexpr, DIM: tl.constexpr, PAGE: tl.constexpr,
    WINDOW: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, PART: tl.constexpr,
    GROUP: tl.constexpr, sinks=None, SINKS: tl.constexpr = False,
):  # fmt: skip
    """Attend as `attend_rows` does; `cache` and strides count elements, of which a byte holds two.

    So many as GROUP have one scale. Values that are widened are multiplied by `v_scale`, and keys
    of fp32 queries by what is in `scale`; see `CachedOperands`.
    """
    block = tl.program_id(0)
    rows = block * ROWS + tl.arange(0, ROWS)
    WIDTH: tl.constexpr = triton.next_power_of_2(DIM)
    CODES: tl.constexpr = DIM // 2
    SCALES: tl.constexpr = DIM // GROUP
    offs = tl.arange(0, WIDTH)
    token, share = rows // SHARE, rows % SHARE
    place, on_row = past + token, token < tokens
    row_at = first_row * Q_HEADS + token * Q_HEADS + head * SHARE + share
    on = on_row[:, None] & (offs < DIM)[None, :]
    query = tl.load(q + row_at[:, None] * DIM + offs[None, :], mask=on, other=0.0)

    best = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    if SINKS:
        best, total = sunk(sinks, head * SHARE + share, on_row, best, total, PART)
    even = tl.zeros((ROWS, WIDTH // 2), dtype=tl.float32)
    odd = tl.zeros((ROWS, WIDTH // 2), dtype=tl.float32)
    last = past + min((block * ROWS + ROWS - 1) // SHARE, tokens - 1)
    first, end = span(block, tokens, past, window, last, SHARE, PAGE, WINDOW, ROWS, KEYS, PART)
    at, at_s = cache // 2, cache // GROUP
    if PAGE:
        found = entries(table, first, last, PAGE, KEYS)
    for start in range(first, end, KEYS):
        keys = start + tl.arange(0, KEYS)
        lies, lies_s = keys * (stride_token // 2), keys * (stride_token // GROUP)
        if PAGE:
            page, inside = page_of_each(found, PAGE, KEYS), keys % PAGE
            lies = page * (stride_page // 2) + inside * (stride_token // 2)
            lies_s = page * (stride_page // GROUP) + inside * (stride_token // GROUP)
            found = entries(table, start + KEYS, last, PAGE, KEYS)  # ahead: keys wait for it
        k = _of_keys(k_cache, at, start, lies, last, CODES, WIDTH // 2, PAGE, KEYS)
        s = _of_keys(k_scales, at_s, start, lies_s, last, SCALES, WIDTH // GROUP, PAGE, KEYS)
        score = _scores(query, k, s) * scale
        weight, fade, best, total = softened(score, keys, place, window, best, total, WINDOW)
        v = _of_keys(v_cache, at, start, lies, last, CODES, WIDTH // 2, PAGE, KEYS)
        s = _of_keys(v_scales, at_s, start, lies_s, last, SCALES, WIDTH // GROUP, PAGE, KEYS)
        low, high = widened_pairs(v, s, query.dtype)
        weight, fade = weight.to(query.dtype), fade[:, None]
        even = tl.dot(weight, low, even * fade)
        odd = tl.dot(weight, high, odd * fade)
    acc = tl.reshape(tl.join(even, odd), (ROWS, WIDTH))
    store_rows(
        acc, best, total, v_scale, out, bests, totals, row_at, on_row, offs, on, stride_part, DIM,
        PART, True,
    )  # fmt: skip
