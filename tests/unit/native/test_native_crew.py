from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
import threading

import pytest

from asterope.native import ISAS, Module, load_library, run_shared, scratch_area

ITEMS = 2000


@functools.cache
def marking():
    """Load a job that marks each item it takes from a counter, and notes its scratch memory."""

    def write():
        module = Module(ISAS["portable"])
        fn = module.function("mark", [("ptr", "job"), ("ptr", "scratch"), ("i64", "worker")])
        job, scratch, _ = fn.args
        item = fn.slot("i64")
        fn.store(fn.const("i64", 0), item)

        def take():
            fn.store(fn.line(f"atomicrmw add {job.text}, i64 1 monotonic", "i64"), item)
            return fn.load(item, "i64").lt(ITEMS)

        with fn.while_(take):
            index = fn.load(item, "i64")
            fn.store(index, scratch)
            place = job.offset((index + 1) * 8)
            fn.store(fn.load(place, "i64") + 1, place)
        fn.finish()
        return module.text()

    return load_library("test of a crew of workers", ISAS["portable"], ["mark"], write)


def marks(helpers):
    """Share a job; return how often each item was taken, None if another had the helpers."""
    job = (ctypes.c_int64 * (ITEMS + 1))()
    function = marking().symbols["mark"]
    if not run_shared(function, ctypes.addressof(job), helpers=helpers, scratch_bytes=64):
        return None
    return list(job)[1:]


@pytest.mark.parametrize("helpers", [0, 1, 3])
def test_every_item_of_a_job_is_taken_once(helpers):
    for _ in range(50):
        assert marks(helpers) == [1] * ITEMS


def test_callers_at_once_are_served_or_told_to_work_alone():
    found = []

    def call():
        found.extend(marks(1) for _ in range(30))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=20)
    assert len(found) == 120
    assert all(f in (None, [1] * ITEMS) for f in found)


def test_scratch_memory_grows_is_aligned_and_belongs_to_one_thread():
    small = scratch_area(100)
    assert small % 64 == 0
    assert scratch_area(50) == small
    ctypes.memset(scratch_area(1 << 20), 1, 1 << 20)
    others = []
    thread = threading.Thread(target=lambda: others.append(scratch_area(100)))
    thread.start()
    thread.join()
    assert others != [scratch_area(100)]


def test_a_forked_child_has_helpers_of_its_own():
    marks(1)
    child = os.fork()
    if child == 0:
        os._exit(0 if marks(1) == [1] * ITEMS else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_ends_while_helpers_wait():
    code = "import test_native_crew as t; print(t.marks(2) == [1] * t.ITEMS)"
    here = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
