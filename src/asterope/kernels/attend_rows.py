"""One program of attention: rows of queries against blocks of keys, in one pass over these.

Kernels say whose rows and where the keys lie: in one piece, in pages, or as latent vectors. The
order of sums is the same for all.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "ATTENDING", "LOG2E", "attend_rows", "entries", "page_of_each", "softened", "span",
    "store_rows", "sunk",
]  # fmt: skip

ATTENDING = "_attention_kernel"
"""What the names of kernels that attend end with."""
LOG2E = 1.4426950408889634
"""What scores are multiplied by, so that their exponentials are powers of two."""


@triton.jit
def entries(table, start, last, PAGE: tl.constexpr, KEYS: tl.constexpr):
    """Return the pages of the keys from `start` on: one that has all, or one of PAGE keys each."""
    if PAGE >= KEYS:
        found = tl.load(table + start // PAGE, mask=start <= last, other=0)
    else:
        each = start // PAGE + tl.arange(0, KEYS // PAGE)
        found = tl.load(table + each, mask=each <= last // PAGE, other=0)
    return found


@triton.jit
def page_of_each(found, PAGE: tl.constexpr, KEYS: tl.constexpr):
    """Return the page of each key, of what `entries` found."""
    if PAGE >= KEYS:
        page = found
    else:
        page = tl.reshape(tl.broadcast_to(found[:, None], (KEYS // PAGE, PAGE)), (KEYS,))
    return page.to(tl.int64)


@triton.jit
def span(
    block, tokens, past, window, last, SHARE: tl.constexpr, PAGE: tl.constexpr,
    WINDOW: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Return the first key that a program looks at, and the one behind the last."""
    first, end = 0, last + 1
    if WINDOW:
        oldest = past + (block * ROWS) // SHARE - window + 1
        first = max(oldest, 0) // KEYS * KEYS
    if PAGE:  # sequences have their own numbers of tokens: this one may have no such rows
        end = tl.where(block * ROWS < tokens * SHARE, end, 0)
    if PART:
        first += tl.program_id(2) * PART
        end = min(first + PART, end)
    return first, end


@triton.jit
def _scores(query, turned, k, k_r, ROPE: tl.constexpr, LATENT: tl.constexpr):
    """Return the products of queries and keys, with those of their turned parts.

    Latent keys are used twice as they lie, so that what is transposed is the smaller scores.
    """
    if LATENT:
        score = tl.dot(k, tl.trans(query))
        if ROPE:
            score = tl.dot(k_r, tl.trans(turned), score)
        score = tl.trans(score)
    else:
        score = tl.dot(query, tl.trans(k))
        if ROPE:
            score = tl.dot(turned, tl.trans(k_r), score)
    return score


@triton.jit
def softened(score, keys, place, window, best, total, WINDOW: tl.constexpr):
    """Return weights relative to the new maximum, what sums fade by, the maximum and the total."""
    seen = keys[None, :] <= place[:, None]
    if WINDOW:
        seen = seen & (keys[None, :] > place[:, None] - window)
    score = tl.where(seen, score, float("-inf"))
    higher = tl.maximum(best, tl.max(score, axis=1))
    # A row that has seen no key yet has no maximum to subtract.
    shift = tl.where(higher == float("-inf"), 0.0, higher)
    weight = tl.exp2(score - shift[:, None])
    fade = tl.exp2(best - shift)
    return weight, fade, higher, total * fade + tl.sum(weight, axis=1)


@triton.jit
def store_rows(
    acc, best, total, v_scale, out, bests, totals, row_at, on_row, offs_v, on, stride_part,
    VALUE: tl.constexpr, PART: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """Store the result of rows, or of a part their sums, maxima and totals."""
    if SCALED:
        total /= v_scale
    if PART:
        out += tl.program_id(2).to(tl.int64) * stride_part
        stats_at = tl.program_id(2) * (stride_part // VALUE) + row_at
        tl.store(bests + stats_at, best, mask=on_row)
        tl.store(totals + stats_at, total, mask=on_row)
    else:
        acc = acc / total[:, None]
    to = out + row_at[:, None] * VALUE + offs_v[None, :]
    tl.store(to, acc.to(out.dtype.element_ty), mask=on)


@triton.jit
def sunk(sinks, heads, on, best, total, PART: tl.constexpr):
    """Return the maximum and the total of rows that have seen their sinks; of parts, the first."""
    sink = tl.load(sinks + heads, mask=on, other=0.0).to(tl.float32) * 1.4426950408889634
    if PART:
        is_first = tl.program_id(2) == 0
        best = tl.where(is_first, sink, best)
        total = tl.where(is_first, 1.0, total)
    else:
        best, total = sink, total + 1.0
    return best, total


@triton.jit
def attend_rows(
    q, turned_q, k_cache, v_cache, rope_cache, table, out, bests, totals, scale, v_scale,
    first_row, tokens, past, window, cache, rope, stride_q, stride_turned, stride_token,
    stride_rope, stride_page, stride_part, head,
    Q_HEADS: tl.constexpr, SHARE: tl.constexpr, DIM: tl.constexpr, ROPE: tl.constexpr,
    VALUE: tl.constexpr, PAGE: tl.constexpr, WINDOW: tl.constexpr, ROWS: tl.constexpr,
    KEYS: tl.constexpr, PART: tl.constexpr, SCALED: tl.constexpr, LATENT: tl.constexpr,
    sinks=None, SINKS: tl.constexpr = False,
):  # fmt: skip
    """Rows are (token, head) pairs of the query heads that share one key head.

    They begin with row `first_row` of q, which has `tokens` tokens of a sequence after `past`. Keys
    of the head lie from element `cache` on, `stride_token` apart, or in the pages of PAGE tokens
    that `table` lists. With ROPE, queries have so many more elements in `turned_q`, and keys in
    `rope_cache` from `rope` on. With LATENT, values are the keys without these. With PART, a
    program sees so many keys, and stores sums with the maximum they are relative to. A cache of
    fewer bits is widened to the type of the queries; SCALED says that values are multiplied by
    `v_scale`. With SINKS, each query head has a score more in `sinks`, which has no value.
    """
    block = tl.program_id(0)
    rows = block * ROWS + tl.arange(0, ROWS)
    offs_d = tl.arange(0, triton.next_power_of_2(DIM))
    offs_v = tl.arange(0, triton.next_power_of_2(VALUE))
    token, share = rows // SHARE, rows % SHARE
    place = past + token
    row_at = first_row * Q_HEADS + token * Q_HEADS + head * SHARE + share
    on_d, on_v, on_row = offs_d < DIM, offs_v < VALUE, token < tokens
    q_at = q + row_at[:, None] * stride_q
    query = tl.load(q_at + offs_d[None, :], mask=on_row[:, None] & on_d[None, :], other=0.0)
    turned = query
    if ROPE:
        offs_r = tl.arange(0, triton.next_power_of_2(ROPE))
        on_r = offs_r < ROPE
        on_q = on_row[:, None] & on_r[None, :]
        turned_at = turned_q + row_at[:, None] * stride_turned
        turned = tl.load(turned_at + offs_r[None, :], mask=on_q, other=0.0)

    best = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    if SINKS:
        best, total = sunk(sinks, head * SHARE + share, on_row, best, total, PART)
    acc = tl.zeros((ROWS, triton.next_power_of_2(VALUE)), dtype=tl.float32)
    last = past + min((block * ROWS + ROWS - 1) // SHARE, tokens - 1)
    first, end = span(block, tokens, past, window, last, SHARE, PAGE, WINDOW, ROWS, KEYS, PART)
    if PAGE:
        found = entries(table, first, last, PAGE, KEYS)
    for start in range(first, end, KEYS):
        keys = start + tl.arange(0, KEYS)
        there = keys <= last
        lies = keys * stride_token
        if ROPE:  # what is made of latents for many heads may be large
            lies = keys.to(tl.int64) * stride_token
        if PAGE:
            page = page_of_each(found, PAGE, KEYS)
            lies = page * stride_page + keys % PAGE * stride_token
            found = entries(table, start + KEYS, last, PAGE, KEYS)  # ahead: keys wait for it
        at = cache + lies[:, None]
        k = tl.load(
            k_cache + at + offs_d[None, :], mask=there[:, None] & on_d[None, :], other=0.0
        ).to(query.dtype)  # fmt: skip
        k_r = k
        if ROPE:
            if not PAGE:
                lies = keys.to(tl.int64) * stride_rope
            at_r = rope_cache + rope + lies[:, None] + offs_r[None, :]
            k_r = tl.load(at_r, mask=there[:, None] & on_r[None, :], other=0.0).to(query.dtype)
        score = _scores(query, turned, k, k_r, ROPE, LATENT) * scale
        weight, fade, best, total = softened(score, keys, place, window, best, total, WINDOW)
        v = k
        if not LATENT:
            v = tl.load(
                v_cache + at + offs_v[None, :], mask=there[:, None] & on_v[None, :], other=0.0
            ).to(query.dtype)  # fmt: skip
        acc = tl.dot(weight.to(v.dtype), v, acc * fade[:, None])
    store_rows(
        acc, best, total, v_scale, out, bests, totals, row_at, on_row, offs_v,
        on_row[:, None] & on_v[None, :], stride_part, VALUE, PART, SCALED,
    )  # fmt: skip
