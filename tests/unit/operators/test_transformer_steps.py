"""Steps of whole models on GPU nodes: bytes of every weight, shared work, and parts that add up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope import chips
from asterope.errors import ConfigError
from asterope.operators import (
    Chunk,
    Execution,
    Heads,
    LatentHeads,
    MixtureOfExperts,
    Parallel,
    Precision,
    Transformer,
    attention_decode,
    attention_prefill,
    collective,
    decode_step,
    expert_loads,
    experts,
    gemm,
    mixed_step,
    prefill_step,
)

H100 = chips.get("h100")
HEADS = Heads(query=32, key_value=8, dim=128)
DENSE = Transformer(
    hidden_size=4096, num_layers=32, heads=HEADS, vocab_size=128256, intermediate_size=14336
)
SPARSE = Transformer(
    hidden_size=4096, num_layers=32, heads=HEADS, vocab_size=128256,
    moe=MixtureOfExperts(num_experts=64, top_k=4, intermediate_size=1536),
)  # fmt: skip
LATENT = dataclasses.replace(SPARSE, heads=LatentHeads(query=32, query_latent=1536))
WINDOWED = dataclasses.replace(DENSE, windows=(128, None))
WEIGHTS = 8.03e9 - 128256 * 4096  # Llama 3.1 8B, without the embeddings that a step looks up


def test_a_decode_step_reads_every_weight_and_the_cache_once():
    found = decode_step(H100, DENSE, batch=8, context=4096)
    cache = 8 * 4096 * 32 * 2 * 8 * 128 * 2
    assert found.hbm_bytes == pytest.approx(2 * WEIGHTS + cache, rel=0.01)
    attention = 8 * 4096 * 32 * 4 * 32 * 128
    assert found.flop == pytest.approx(2 * 8 * WEIGHTS + attention, rel=0.01)


@pytest.mark.parametrize("model", [DENSE, SPARSE])
@pytest.mark.parametrize("step", [
    lambda model, **how: decode_step(H100, model, batch=64, context=2048, **how),
    lambda model, **how: prefill_step(H100, model, batch=2, tokens=2048, **how),
], ids=["decode", "prefill"])  # fmt: skip
def test_more_chips_are_faster_but_not_by_their_number(model, step):
    alone, four = (step(model, parallel=Parallel(tensor=n, expert=n)) for n in (1, 4))
    assert four.time_s < alone.time_s < 4 * four.time_s
    assert "all_reduce" in four.parts
    assert "all_reduce" not in alone.parts
    for found in (alone, four):
        assert found.time_s == pytest.approx(sum(found.parts.values()))
        assert found.time_s >= found.hbm_bytes / H100.hbm.bandwidth_bytes_per_s


def test_fp8_halves_what_a_decode_step_reads_of_projections():
    fp8 = Precision(rate="fp8", a_bits=8, b_bits=8)
    full, half = (
        decode_step(H100, DENSE, batch=1, context=128, precision=p) for p in (Precision(), fp8)
    )
    head = 128256 * 4096 * 2
    assert half.hbm_bytes - head == pytest.approx((full.hbm_bytes - head) / 2, rel=0.02)


def test_heads_that_cannot_be_shared_out_are_named():
    with pytest.raises(ConfigError, match="32 heads cannot be shared by 5 chips"):
        decode_step(H100, DENSE, batch=1, context=128, parallel=Parallel(tensor=5))


def test_chips_that_share_tensors_and_experts_hold_the_model_once():
    """Four chips as 2 x expert, each of which two chips cut, or one expert group that all cut."""
    for expert, tensor in ((2, 4), (1, 4), (4, 4)):
        how = Parallel(tensor=tensor, expert=expert)
        found = decode_step(H100, SPARSE, batch=1024, context=1, parallel=how)
        weights = 3 * 4096 * 1536 * 64 * 2 * SPARSE.num_layers / tensor
        assert found.hbm_bytes > weights
        assert found.hbm_bytes < 2.2 * weights


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda: gemm(H100, 0, 8, 8, rate="bf16", bits=(16, 16)), "m"),
        (lambda: attention_decode(H100, HEADS, batch=1, keys=0), "keys"),
        (lambda: attention_prefill(H100, HEADS, batch=1, queries=8, window=0), "window"),
        (lambda: attention_prefill(H100, HEADS, batch=1, queries=8, context=-1), "context"),
        (lambda: mixed_step(H100, DENSE), "prefill"),
        (lambda: collective(H100, "all_reduce", 1 << 20, 1), "chips"),
        (lambda: expert_loads(8, 9, 1), "num_experts"),
        (lambda: expert_loads(8, 2, 1, ranks=3), "num_experts"),
        (lambda: experts(H100, np.zeros(4), 64, 64, rate="bf16", bits=(16, 16)), "tokens"),
        (lambda: decode_step(H100, DENSE, batch=0, context=8), "batch"),
        (lambda: decode_step(H100, DENSE, batch=1, context=8, parallel=Parallel(tensor=0)),
         "parallel.tensor"),
    ],
)  # fmt: skip
def test_sizes_that_mean_nothing_are_named(call, where):
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.where == where


@pytest.mark.parametrize("model", [DENSE, SPARSE, LATENT])
@pytest.mark.parametrize("chunk", [Chunk(tokens=512), Chunk(tokens=300, context=1700)])
@pytest.mark.parametrize("batch", [1, 48])
def test_a_mixed_step_takes_at_least_each_part_and_less_than_both(model, chunk, batch):
    def step(prefill, batch):
        return mixed_step(
            H100, model, prefill=prefill, batch=batch, context=900,
            execution=Execution(host_layer_s=0),
        ).time_s  # fmt: skip

    mixed, reading, making = step((chunk,), batch), step((chunk,), 0), step((), batch)
    assert max(reading, making) <= mixed <= reading + making


@settings(max_examples=40, deadline=None)
@given(
    model=st.sampled_from([DENSE, SPARSE, LATENT, WINDOWED]), tokens=st.integers(1, 4000),
    more=st.integers(1, 1000), context=st.integers(0, 20000), batch=st.integers(0, 256),
)  # fmt: skip
def test_parts_add_up_and_a_longer_cache_is_never_faster(model, tokens, more, context, batch):
    def step(context):
        chunks = (Chunk(tokens=tokens, context=context),)
        return mixed_step(H100, model, prefill=chunks, batch=batch, context=context + 1)

    near, far = step(context), step(context + more)
    assert near.time_s == pytest.approx(sum(near.parts.values()))
    assert near.time_s >= near.hbm_bytes / H100.hbm.bandwidth_bytes_per_s
    assert near.time_s >= near.flop / H100.peak_flop_per_s["bf16"]
    assert far.time_s >= near.time_s * (1 - 1e-12)


@pytest.mark.parametrize("model", [DENSE, SPARSE, LATENT, WINDOWED])
@pytest.mark.parametrize("figure", ["hbm.bandwidth_bytes_per_s", "peak_flop_per_s.bf16",
                                    "network.per_direction_bytes_per_s"])  # fmt: skip
def test_a_faster_part_never_makes_a_mixed_step_slower(model, figure):
    now = {row.path: row.value for row in chips.figures(H100)}
    faster = chips.replace(H100, {figure: 1.5 * now[figure]})
    before, after = (
        mixed_step(
            chip, model, prefill=(Chunk(tokens=700, context=300),), batch=32, context=2000,
            parallel=Parallel(tensor=4, expert=4),
        ).time_s
        for chip in (H100, faster)
    )  # fmt: skip
    assert after <= before * (1 + 1e-12)


def test_chunks_of_a_prompt_do_its_work_and_read_its_cache_again():
    whole = prefill_step(H100, DENSE, batch=1, tokens=4096)
    parts = [
        prefill_step(H100, DENSE, batch=1, tokens=1024, context=c) for c in (0, 1024, 2048, 3072)
    ]
    heads = sum(part.flop for part in parts) - whole.flop
    assert heads == pytest.approx(3 * 2 * 4096 * 128256)  # each step multiplies by the head
    assert sum(part.time_s for part in parts) > whole.time_s


def test_windows_bound_what_attention_reads():
    far, farther = (decode_step(H100, WINDOWED, batch=64, context=c) for c in (4096, 8192))
    grown = farther.hbm_bytes - far.hbm_bytes
    assert (
        grown == 64 * 4096 * 16 * HEADS.cache_bytes_per_key
    )  # of 32 layers, 16 look back all the way
    assert WINDOWED.layers_by_window() == {128: 16, None: 16}


def test_latent_heads_read_one_vector_a_token_and_layer():
    near, far = (decode_step(H100, LATENT, batch=8, context=c) for c in (1024, 2048))
    assert far.hbm_bytes - near.hbm_bytes == 8 * 1024 * 32 * (512 + 64) * 2


def test_shared_experts_and_dense_layers_add_their_weights():
    moe = MixtureOfExperts(num_experts=64, top_k=4, intermediate_size=1536)
    bare = dataclasses.replace(SPARSE, moe=moe)
    shared = dataclasses.replace(SPARSE, moe=dataclasses.replace(moe, shared_intermediate=1536))
    dense = dataclasses.replace(SPARSE, moe=moe, dense_layers=2, intermediate_size=8192)
    before, more, other = (
        decode_step(H100, model, batch=1, context=16).hbm_bytes for model in (bare, shared, dense)
    )
    assert more - before == pytest.approx(32 * 3 * 4096 * 1536 * 2, rel=0.01)
    wider = 8192 - 4 * 1536  # in place of the four experts that a token picks
    assert other - before == pytest.approx(2 * 3 * 4096 * wider * 2, rel=0.05)


@pytest.mark.parametrize("slower", [
    Execution(fused_norms=False), Execution(fused_projections=False), Execution(gap_s=1e-6),
    Execution(fused_rounding=False),
])  # fmt: skip
def test_unfused_variants_and_gaps_cost_time(slower):
    how = {"batch": 16, "context": 1000, "precision": Precision(rate="fp8", a_bits=8, b_bits=8)}
    assert (
        decode_step(H100, DENSE, **how).time_s
        < decode_step(H100, DENSE, execution=slower, **how).time_s
    )


def test_a_host_that_launches_bounds_short_prefills_and_no_decodes():
    slow = Execution(host_layer_s=1e-3)
    short = prefill_step(H100, DENSE, batch=1, tokens=16, execution=slow)
    assert short.time_s == pytest.approx(32e-3)
    assert short.bound_by == "host"
    assert "host" not in decode_step(H100, DENSE, batch=1, context=16, execution=slow).parts
    assert "host" not in prefill_step(H100, DENSE, batch=4, tokens=8192, execution=slow).parts


def test_an_all_reduce_may_hide_behind_products():
    how = {"batch": 64, "context": 512, "parallel": Parallel(tensor=8)}
    seen, hidden = (
        decode_step(H100, DENSE, execution=Execution(hidden_all_reduce=share), **how)
        for share in (0.0, 1.0)
    )
    assert seen.time_s - hidden.time_s == pytest.approx(seen.parts["all_reduce"])
    with pytest.raises(ConfigError, match="2 is no share"):
        Execution(hidden_all_reduce=2)
    with pytest.raises(ConfigError, match="-1 is not a time"):
        Execution(gap_s=-1)
