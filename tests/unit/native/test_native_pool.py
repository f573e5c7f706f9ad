from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

import pytest

from asterope.native import Counter, run_on_all_cores


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setenv("ASTEROPE_NUM_THREADS", "2")


@pytest.mark.parametrize(
    ("threads", "items", "expected"), [(1, 9, 1), (2, 9, 2), (3, 9, 3), (3, 2, 2), (3, 1, 1)]
)
def test_one_call_a_thread_and_no_more_threads_than_items(monkeypatch, threads, items, expected):
    monkeypatch.setenv("ASTEROPE_NUM_THREADS", str(threads))
    seen = []
    run_on_all_cores(seen.append, items)
    assert sorted(seen) == list(range(expected))


def test_small_work_stays_on_the_calling_thread(two_threads):
    seen = []
    run_on_all_cores(lambda _: seen.append(threading.get_ident()), 100, small=True)
    assert seen == [threading.get_ident()]


def test_calls_overlap(two_threads):
    barrier = threading.Barrier(2, timeout=5)
    run_on_all_cores(lambda _: barrier.wait(), 2)
    assert not barrier.broken


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_on_any_thread_reaches_the_caller_and_the_pool_goes_on(two_threads, failing):
    def work(i):
        if i == failing:
            raise ValueError(f"thread {i}")

    with pytest.raises(ValueError, match=f"thread {failing}"):
        run_on_all_cores(work, 2)
    seen = []
    run_on_all_cores(seen.append, 2)
    assert sorted(seen) == [0, 1]


def test_several_callers_at_once_all_get_their_work_done(two_threads):
    """Who comes while another has the workers does all the work alone, as thread 0."""
    done = []

    def call():
        for _ in range(20):
            seen = []
            run_on_all_cores(seen.append, 2)
            done.append(sorted(seen))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=20)
    assert len(done) == 80
    assert all(seen in ([0], [0, 1]) for seen in done)


def test_work_may_ask_for_all_cores_itself(two_threads):
    seen = []
    run_on_all_cores(lambda i: run_on_all_cores(lambda j: seen.append((i, j)), 2), 2)
    assert {i for i, _ in seen} == {0, 1}


def test_a_forked_child_can_use_all_cores_again():
    code = """
import os
from asterope.native import run_on_all_cores
run_on_all_cores(lambda i: None, 2)
child = os.fork()
seen = []
run_on_all_cores(seen.append, 2)
if child == 0:
    os._exit(0 if sorted(seen) == [0, 1] else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {"ASTEROPE_NUM_THREADS": "2"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, process_group=0)
    try:
        status = process.wait(timeout=4)
    except subprocess.TimeoutExpired:
        status = "the child waits for threads that only its parent has"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert status == 0


def test_counter_starts_at_zero_and_lies_in_memory():
    counter = Counter()
    value = ctypes.c_int64.from_address(counter.address)
    assert value.value == 0
    value.value += 5
    assert ctypes.c_int64.from_address(counter.address).value == 5
