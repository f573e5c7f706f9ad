"""Run one of Triton's tutorials as it is, with its benchmarks cut to sizes fit for a CPU.

Run it as `python -m conformance.tutorial PATH`. The tutorial's own assertions decide. Its
benchmarks call every provider at their first sizes, once each, without plotting. One that fails by
an assertion is run again with exact references, which it then says.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import triton.testing

from conformance.exact import ExactTorch, same_seeds
from conformance.shims import SHIMS
from conformance.suites import TUTORIAL_SHIMS, TUTORIAL_SIZES, TUTORIAL_TESTS

__all__ = ["EXACT"]

EXACT = "passes with exact references"

_SIZES = 2


def _run(mark: Any, most: int) -> None:
    """Stand in for `Mark.run`: call the benchmark, check that it measured something."""
    marks = mark.benchmarks
    for bench in marks if isinstance(marks, list) else [marks]:
        for x in list(bench.x_vals)[:most]:
            given = x if isinstance(x, (list, tuple)) else [x] * len(bench.x_names)
            sizes = dict(zip(bench.x_names, given, strict=True))
            for line in bench.line_vals:
                found = mark.fn(**sizes, **{bench.line_arg: line}, **bench.args)
                values = found if isinstance(found, (list, tuple)) else [found]
                assert all(value > 0 for value in values), (bench.plot_name, sizes, line, found)


def _bench_once(
    fn: Callable[[], object], *, quantiles: Sequence[float] | None = None, **_: Any
) -> Any:
    """Stand in for `do_bench`, which calls half a minute of torch's fp16 six times at least."""
    begun = time.perf_counter()
    fn()
    ms = 1e3 * (time.perf_counter() - begun)
    return ms if quantiles is None else [ms] * len(quantiles)


def main(path: str) -> None:
    """Run a tutorial in an empty folder."""
    script = str(Path(path).resolve())
    most = TUTORIAL_SIZES.get(Path(path).name, _SIZES)
    triton.testing.Mark.run = lambda mark, **_: _run(mark, most)
    triton.testing.do_bench = _bench_once
    shims = (*TUTORIAL_TESTS.shims, *TUTORIAL_SHIMS.get(Path(path).name, ()))
    with contextlib.ExitStack() as stack:
        for name in shims:
            stack.enter_context(SHIMS[name]())
        os.chdir(stack.enter_context(tempfile.TemporaryDirectory()))
        restore = same_seeds()
        try:
            runpy.run_path(script, run_name="__main__")
        except AssertionError:
            restore()
            with ExactTorch():
                runpy.run_path(script, run_name="__main__")
            print(EXACT)


if __name__ == "__main__":
    main(sys.argv[1])
