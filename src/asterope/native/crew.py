"""Threads that share a job in native code: woken cheaply, waited for only if they came.

A job is a function `f(job, scratch, worker)` that takes work from counters inside the job until
none is left, so any number of threads may run it at once. The caller runs it as worker 0, and is
done when the work is: a thread that wakes up late finds the job closed and goes back to sleep. A
thread is the same worker of every job. All waiting happens in generated code without the GIL, on a
POSIX mutex and conditions.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import platform
import threading
from collections.abc import Callable

from asterope.native.build import Function, Module, Val
from asterope.native.cpu import ISAS
from asterope.native.files import sources_digest
from asterope.native.jit import load_library

__all__ = ["run_shared", "scratch_area"]

# Where things lie in the memory that the threads share; mutex and conditions have room to spare.
_MUTEX, _WORK, _DONE = 0, 64, 128
_GENERATION, _FUNCTION, _JOB, _WANTED, _ACTIVE, _STOP = (192 + 8 * i for i in range(6))
_SHARED_BYTES = 256
# How long a thread looks for news before it sleeps: some 200 us, so that it is still awake when
# Python launches the next kernel, which takes 15 us, and 50 where the kernel before emptied the
# caches; a thread that slept is 25 us late. Giving the core away in between would lose it for
# milliseconds where other processes want it. x86 counts ticks, 2 to 4 a ns, since a pause takes 20
# ns on some CPUs and 60 on others; elsewhere looks are counted.
_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
_PATIENCE = 1 << 19 if _IS_X86 else 4000
_SYMBOLS = ("initialise", "serve", "share", "stop")
_ALIGN = 64


def _call(fn: Function, name: str, *args: Val) -> None:
    fn.call(name, args, "i32")


def _news(fn: Function, field: Val, seen: Val) -> Val:
    """Whether a word another thread writes differs from what was seen."""
    return fn.line(f"load atomic i64, {field.text} monotonic, align 8", "i64").ne(seen)


def _pause(fn: Function) -> None:
    """Let a moment pass; other CPUs than x86 give the core away."""
    if _IS_X86:
        fn.call("llvm.x86.sse2.pause", (), "void")
    else:
        fn.call("sched_yield", (), "i32")


def _ticks(fn: Function) -> Val:
    return fn.call("llvm.readcyclecounter", (), "i64")


def _look(fn: Function, field: Val, seen: Val) -> None:
    """Look a while for news without sleeping."""
    spent = fn.slot("i64")
    fn.store(fn.const("i64", 0), spent)
    begin = _ticks(fn) if _IS_X86 else None

    def quiet() -> Val:
        return ~_news(fn, field, seen) & fn.load(spent, "i64").lt(_PATIENCE)

    with fn.while_(quiet):
        _pause(fn)
        fn.store(_ticks(fn) - begin if begin else fn.load(spent, "i64") + 1, spent)


def _sleep(fn: Function, shared: Val, condition: int, field: Val, seen: Val) -> None:
    """Wait, holding the mutex, until a word differs from what was seen."""
    with fn.while_(lambda: ~_news(fn, field, seen)):
        _call(fn, "pthread_cond_wait", shared.offset(condition), shared.offset(_MUTEX))


def _write_initialise(module: Module) -> None:
    fn = module.function("initialise", [("ptr", "shared")])
    (shared,) = fn.args
    null = fn.const("ptr", 0)
    _call(fn, "pthread_mutex_init", shared.offset(_MUTEX), null)
    for condition in (_WORK, _DONE):
        _call(fn, "pthread_cond_init", shared.offset(condition), null)
    fn.finish()


def _run(fn: Function, function: Val, job: Val, scratch: Val, worker: Val) -> None:
    fn.effect(f"call void {function.ref}({job.text}, {scratch.text}, {worker.text})")


def _write_serve(module: Module) -> None:
    """Write a thread's life: sleep, join a job that wants this worker, until told to stop."""
    fn = module.function("serve", [("ptr", "shared"), ("ptr", "seat"), ("i64", "worker")])
    shared, seat, worker = fn.args
    mutex, generation, wanted, active = (
        shared.offset(i) for i in (_MUTEX, _GENERATION, _WANTED, _ACTIVE)
    )
    seen = fn.slot("i64")
    fn.store(fn.const("i64", 0), seen)
    with fn.while_(lambda: fn.load(shared.offset(_STOP), "i64").eq(0)):
        _look(fn, generation, fn.load(seen, "i64"))
        _call(fn, "pthread_mutex_lock", mutex)
        _sleep(fn, shared, _WORK, generation, fn.load(seen, "i64"))
        fn.store(fn.load(generation, "i64"), seen)
        with fn.if_(fn.load(wanted, "i64").ge(worker)):
            fn.store(fn.load(active, "i64") + 1, active)
            function, job = (fn.load(shared.offset(i), "ptr") for i in (_FUNCTION, _JOB))
            _call(fn, "pthread_mutex_unlock", mutex)
            _run(fn, function, job, fn.load(seat, "ptr"), worker)
            _call(fn, "pthread_mutex_lock", mutex)
            fn.store(fn.load(active, "i64") - 1, active)
            _call(fn, "pthread_cond_signal", shared.offset(_DONE))
        _call(fn, "pthread_mutex_unlock", mutex)
    fn.finish()


def _write_share(module: Module) -> None:
    """Write the caller's side: open a job, work on it, close it, wait for who is still at it."""
    parameters = [("ptr", "shared"), ("ptr", "function"), ("ptr", "job"), ("ptr", "scratch")]
    fn = module.function("share", [*parameters, ("i64", "helpers")])
    shared, function, job, scratch, helpers = fn.args
    mutex, generation, wanted, active = (
        shared.offset(i) for i in (_MUTEX, _GENERATION, _WANTED, _ACTIVE)
    )
    _call(fn, "pthread_mutex_lock", mutex)
    for value, place in ((function, _FUNCTION), (job, _JOB), (helpers, _WANTED)):
        fn.store(value, shared.offset(place))
    fn.store(fn.load(generation, "i64") + 1, generation)
    _call(fn, "pthread_cond_broadcast", shared.offset(_WORK))
    _call(fn, "pthread_mutex_unlock", mutex)
    _run(fn, function, job, scratch, fn.const("i64", 0))
    _call(fn, "pthread_mutex_lock", mutex)
    fn.store(fn.const("i64", 0), wanted)

    def is_busy() -> Val:
        return fn.load(active, "i64").ne(0)

    with fn.while_(is_busy):
        busy = fn.load(active, "i64")
        _call(fn, "pthread_mutex_unlock", mutex)
        _look(fn, active, busy)
        _call(fn, "pthread_mutex_lock", mutex)
        with fn.while_(lambda: ~_news(fn, active, busy)):
            _call(fn, "pthread_cond_wait", shared.offset(_DONE), mutex)
    _call(fn, "pthread_mutex_unlock", mutex)
    fn.finish()


def _write_stop(module: Module) -> None:
    fn = module.function("stop", [("ptr", "shared")])
    (shared,) = fn.args
    _call(fn, "pthread_mutex_lock", shared.offset(_MUTEX))
    fn.store(fn.const("i64", 1), shared.offset(_STOP))
    fn.store(fn.load(shared.offset(_GENERATION), "i64") + 1, shared.offset(_GENERATION))
    _call(fn, "pthread_cond_broadcast", shared.offset(_WORK))
    _call(fn, "pthread_mutex_unlock", shared.offset(_MUTEX))
    fn.finish()


def _write_llvm() -> str:
    module = Module(ISAS["portable"])
    for write in (_write_initialise, _write_serve, _write_share, _write_stop):
        write(module)
    return module.text()


@functools.cache
def _functions() -> dict[str, Callable[..., None]]:
    library = load_library(
        f"crew|{sources_digest('native')}", ISAS["portable"], _SYMBOLS, _write_llvm
    )
    pointer = ctypes.c_void_p
    share = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, pointer, ctypes.c_int64)
    types = {
        "initialise": ctypes.CFUNCTYPE(None, pointer), "stop": ctypes.CFUNCTYPE(None, pointer),
        "serve": ctypes.CFUNCTYPE(None, pointer, pointer, ctypes.c_int64), "share": share,
    }  # fmt: skip
    made: dict[str, Callable[..., None]] = {
        name: types[name](library.symbols[name]) for name in _SYMBOLS
    }
    made["share"].library = library  # type: ignore[attr-defined]  # keeps the code loaded
    return made


class _Area:
    """Scratch memory of one thread, grown when more is needed."""

    def __init__(self) -> None:
        self._size = -1
        self.address = 0

    def grown(self, num_bytes: int) -> int:
        """Return the address, of at least so many bytes."""
        if self._size < num_bytes:
            self._memory = ctypes.create_string_buffer(num_bytes + 2 * _ALIGN)
            self._size = num_bytes
            self.address = -(-ctypes.addressof(self._memory) // _ALIGN) * _ALIGN
        return self.address


class _Areas(threading.local):
    def __init__(self) -> None:
        self.mine = _Area()


_areas = _Areas()


def scratch_area(num_bytes: int) -> int:
    """Return the address of this thread's scratch memory, grown to at least `num_bytes`."""
    return _areas.mine.grown(num_bytes)


class _Crew:
    """The threads that wait, and what they share with the caller."""

    def __init__(self) -> None:
        self.functions = _functions()
        self.share = self.functions["share"]
        self._prepared = (0, -1)
        self._shared = ctypes.create_string_buffer(_SHARED_BYTES + _ALIGN)
        self.shared = -(-ctypes.addressof(self._shared) // _ALIGN) * _ALIGN
        self._seats: list[tuple[ctypes.c_void_p, _Area]] = []
        self._threads: list[threading.Thread] = []
        self.functions["initialise"](self.shared)

    def prepare(self, helpers: int, scratch_bytes: int) -> None:
        """Have so many threads, each with so much scratch memory. None of them is at work."""
        if (helpers, scratch_bytes) == self._prepared:
            return
        while len(self._threads) < helpers:
            seat = ctypes.c_void_p(0)
            self._seats.append((seat, _Area()))
            thread = threading.Thread(
                target=self.functions["serve"],
                args=(self.shared, ctypes.addressof(seat), len(self._seats)),
                name=f"asterope-{len(self._seats)}", daemon=True,
            )  # fmt: skip
            self._threads.append(thread)
            thread.start()
        for seat, area in self._seats:
            seat.value = area.grown(scratch_bytes)
        self._prepared = (helpers, scratch_bytes)

    def stop(self) -> None:
        """End the threads: they must not be inside generated code when that is unloaded."""
        self.functions["stop"](self.shared)
        for thread in self._threads:
            thread.join(timeout=5)


_lock = threading.Lock()
_crew: _Crew | None = None


def _start_afresh() -> None:
    """Forget threads that a forked child does not have."""
    global _lock, _crew
    _lock, _crew = threading.Lock(), None


@atexit.register
def _stop() -> None:
    if _crew is not None:
        _crew.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)


def run_shared(function: int, job: int, *, helpers: int, scratch_bytes: int) -> bool:
    """Run a job on this thread and on up to `helpers` others; return when its work is done.

    Returns False, having done nothing, if another thread has the helpers.
    """
    global _crew  # noqa: PLW0603  the threads of the process
    lock = _lock
    if not lock.acquire(blocking=False):
        return False
    try:
        if _crew is None:
            _crew = _Crew()
        crew = _crew
        crew.prepare(helpers, scratch_bytes)
        scratch = scratch_area(scratch_bytes)
        crew.share(crew.shared, function, job, scratch, helpers)
    finally:
        lock.release()
    return True
