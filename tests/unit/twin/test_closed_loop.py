"""Closed loops: every token once, limits kept, and times that can be worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope.errors import ConfigError
from asterope.operators import Chunk
from asterope.twin import Request, Server, closed_loop

WIDE = Server(max_batch=64, max_step_tokens=4096, kv_tokens=10**6, turnaround_s=0.0)


def _step_s(prefill: tuple[Chunk, ...], batch: int, context: int) -> float:
    """A second for every hundred tokens read, and one for every step."""
    return 1 + sum(chunk.tokens for chunk in prefill) / 100


class _Watched:
    """Note what every step does."""

    def __init__(self) -> None:
        self.steps: list[tuple[tuple[Chunk, ...], int, int]] = []

    def __call__(self, prefill: tuple[Chunk, ...], batch: int, context: int) -> float:
        self.steps.append((prefill, batch, context))
        return _step_s(prefill, batch, context)


def test_one_request_alone_is_its_prompt_and_its_tokens():
    found = closed_loop(WIDE, [Request(prompt=300, output=11)], _step_s, concurrency=1)
    assert found.ttft_s == (4.0,)
    assert found.tpot_s == (1.0,)
    assert found.total_s == 14.0


def test_a_budget_cuts_prompts_and_running_sequences_ride_along():
    watched = _Watched()
    server = Server(max_batch=8, max_step_tokens=100, kv_tokens=10**6, turnaround_s=0.0)
    closed_loop(server, [Request(prompt=150, output=4)] * 2, watched, concurrency=2)
    assert watched.steps[:3] == [
        ((Chunk(tokens=100),), 0, 0),
        ((Chunk(tokens=50, context=100), Chunk(tokens=50)), 0, 0),
        ((Chunk(tokens=99, context=50),), 1, 151),
    ]


def test_prompts_first_leave_running_sequences_waiting():
    watched = _Watched()
    server = Server(
        max_batch=8, max_step_tokens=100, kv_tokens=10**6, prompts_first=True, turnaround_s=0.0
    )
    closed_loop(server, [Request(prompt=100, output=4)] * 3, watched, concurrency=3)
    assert [batch for chunks, batch, _ in watched.steps if chunks] == [0, 0, 0]


def test_uncut_prompts_wait_for_a_step_with_room():
    watched = _Watched()
    server = Server(max_batch=8, max_step_tokens=250, kv_tokens=10**6, chunked=False)
    closed_loop(server, [Request(prompt=100, output=2)] * 5, watched, concurrency=5)
    assert [len(chunks) for chunks, _, _ in watched.steps if chunks] == [2, 2, 1]


def test_a_step_decided_ahead_sees_a_request_one_step_later():
    times = [
        closed_loop(
            Server(max_batch=2, max_step_tokens=4096, kv_tokens=10**6, schedules_ahead=ahead,
                   turnaround_s=0.001),
            [Request(prompt=100, output=9), Request(prompt=100, output=30)] * 4, _step_s,
            concurrency=2,
        ).mean_ttft_s
        for ahead in (False, True)
    ]  # fmt: skip
    assert times[0] < times[1] <= times[0] + 1


def test_tokens_leave_a_server_that_runs_ahead_once_the_next_prompt_is_launched():
    def first_tokens(launch_s):
        server = Server(
            max_batch=2, max_step_tokens=101, kv_tokens=10**6, schedules_ahead=True,
            launch_s=launch_s, turnaround_s=0.0, chunked=False,
        )  # fmt: skip
        lots = [Request(prompt=100, output=5)] * 2
        return closed_loop(server, lots, _step_s, concurrency=2).ttft_s

    assert first_tokens(0.0) == (2.0, 4.0)
    assert first_tokens(0.5) == (2.5, 4.0)  # no prompt follows the second


def test_a_full_cache_holds_requests_back():
    lots = [Request(prompt=900, output=100)] * 40
    small = Server(max_batch=64, max_step_tokens=4096, kv_tokens=4000, reserved_output=1.0)
    watched = _Watched()
    held = closed_loop(small, lots, watched, concurrency=20)
    assert max(batch for _, batch, _ in watched.steps) == 4
    assert held.mean_ttft_s > 3 * closed_loop(WIDE, lots, _step_s, concurrency=20).mean_ttft_s


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 40)), min_size=1, max_size=24),
    concurrency=st.integers(1, 30), max_batch=st.integers(1, 8),
    max_step_tokens=st.integers(16, 600), kv_tokens=st.integers(1, 2000),
    chunked=st.booleans(), prompts_first=st.booleans(), schedules_ahead=st.booleans(),
)  # fmt: skip
def test_every_token_is_read_or_made_once_within_the_limits(
    lengths, concurrency, max_batch, max_step_tokens, kv_tokens, **how
):
    requests = [Request(prompt=p, output=o) for p, o in lengths]
    server = Server(
        max_batch=max_batch, max_step_tokens=max_step_tokens, kv_tokens=kv_tokens, **how
    )
    watched = _Watched()
    found = closed_loop(server, requests, watched, concurrency=concurrency)
    assert len(found.ttft_s) == len(requests)
    read = sum(chunk.tokens for chunks, _, _ in watched.steps for chunk in chunks)
    assert read >= sum(request.prompt for request in requests)
    if kv_tokens >= sum(p + o for p, o in lengths):
        assert read == sum(request.prompt for request in requests)
    for chunks, batch, _ in watched.steps:
        assert batch + len(chunks) <= max_batch
        taken = sum(chunk.tokens for chunk in chunks)
        assert taken <= max_step_tokens or (not how["chunked"] and len(chunks) == 1)
    assert min(found.ttft_s) > 0
    assert found.total_s + server.turnaround_s >= max(found.ttft_s)
    again = closed_loop(server, requests, _step_s, concurrency=concurrency)
    assert again == found


def test_a_cache_that_fills_up_takes_the_last_request_back_and_reads_it_again():
    watched = _Watched()
    server = Server(max_batch=2, max_step_tokens=4096, kv_tokens=230, reserved_output=0.0,
                    turnaround_s=0.0)  # fmt: skip
    found = closed_loop(server, [Request(prompt=100, output=50)] * 2, watched, concurrency=2)
    read = [chunk.tokens for chunks, _, _ in watched.steps for chunk in chunks]
    assert read == [100, 100, 115]  # with the 15 tokens that were written when 230 were held
    assert found.ttft_s == (3.0, 3.0)
    assert found.total_s == 3 + 14 + 35 + 2.15 + 34  # alone to its end, then the other


def test_a_loop_without_requests_is_refused():
    with pytest.raises(ConfigError, match="needs requests"):
        closed_loop(WIDE, [], _step_s, concurrency=1)
    with pytest.raises(ConfigError, match="sizes of 1 or more"):
        closed_loop(WIDE, [Request(prompt=0, output=1)], _step_s, concurrency=1)


def test_a_front_end_sends_no_more_tokens_than_it_can():
    def least_s(token_s):
        server = dataclasses.replace(WIDE, token_s=token_s)
        found = closed_loop(server, [Request(prompt=100, output=40)] * 16, _step_s, concurrency=8)
        pairs = zip(found.ttft_s, found.tpot_s, strict=True)
        return min(ttft + 39 * tpot for ttft, tpot in pairs)

    assert least_s(0.0) == 9 + 39
    assert 0.95 * 8 * 40 * 0.5 <= least_s(0.5) <= 1.1 * 8 * 40 * 0.5


def test_the_host_bounds_a_step_and_each_sequence_adds_to_it():
    server = dataclasses.replace(WIDE, host_step_s=2.0, host_sequence_s=0.5)
    found = closed_loop(server, [Request(prompt=100, output=11)] * 4, _step_s, concurrency=4)
    assert found.mean_tpot_s == 4.0


def test_a_first_token_shown_with_the_second_comes_a_step_later():
    request = Request(prompt=300, output=11)
    server = dataclasses.replace(WIDE, first_shown=2)
    found = closed_loop(server, [request], _step_s, concurrency=1)
    assert found.ttft_s == (5.0,)
    assert found.tpot_s == (1.0,)


def test_a_front_end_takes_one_request_after_the_other():
    server = dataclasses.replace(WIDE, request_s=10.0)
    found = closed_loop(server, [Request(prompt=100, output=2)] * 3, _step_s, concurrency=3)
    assert found.ttft_s == (12.0, 22.0, 32.0)
