"""Run a suite in processes of its own, and note what becomes of each test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.exact import EXACT_IS_SLOWER
from conformance.plugin import read_log
from conformance.suites import Suite

__all__ = ["Options", "results_of", "run_suite"]

_TOOLS = Path(__file__).parent.parent
# A file with more text than this is shared among the processes.
_LARGE_BYTES = 60_000
_GRACE_S = 90
_IMPORT_S = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to run: processes at once, seconds a test may take, one test of how many, pytest's -k."""

    jobs: int
    timeout_s: int
    sample: int = 1
    keyword: str = ""


def results_of(log: Path) -> dict[str, dict[str, Any]]:
    """Return the last result of each test in a log."""
    return {r["test"]: r for r in read_log(log) if "outcome" in r}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """One process's share of a file."""

    suite: Suite
    checkout: Path
    file: str
    share: str
    log: Path

    def command(self, options: Options) -> list[str]:
        suite = self.suite
        inside = {k: v for k, v in suite.not_run.items() if k.startswith(f"{self.file}::")}
        return [
            sys.executable, "-m", "pytest", self.file, "-q", "-p", "no:cacheprovider",
            "-p", "conformance.plugin", "--rootdir", ".", "--tb", "short", "-W", "ignore",
            *suite.options, *(["-k", options.keyword] if options.keyword else []),
            "--conformance-log", str(self.log), "--conformance-share", self.share,
            "--conformance-sample", str(options.sample),
            "--conformance-timeout", str(options.timeout_s),
            "--conformance-shims", ",".join(suite.shims),
            "--conformance-not-run", json.dumps(inside),
        ]  # fmt: skip

    def environment(self, options: Options) -> dict[str, str]:
        threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
        root = self.checkout / self.suite.root
        path = [str(_TOOLS), *(str(root / p) for p in self.suite.python_path)]
        path += filter(None, [os.environ.get("PYTHONPATH", "")])
        return {
            **os.environ, **self.suite.env, "PYTHONPATH": os.pathsep.join(path),
            "ASTEROPE_NUM_THREADS": threads, "OMP_NUM_THREADS": threads,
            "PYTHONDONTWRITEBYTECODE": "1", "TRITON_DEFAULT_BACKEND": "maia",
        }  # fmt: skip


def _finish(task: _Task, options: Options) -> None:
    """Run a share to its end, starting again after a test that took the process down."""
    while True:
        before = len(read_log(task.log))
        output = task.log.with_suffix(".out")
        with output.open("w") as out:
            process = subprocess.Popen(
                task.command(options), cwd=task.suite.folder(task.checkout), stdout=out,
                stderr=subprocess.STDOUT, env=task.environment(options), start_new_session=True,
            )  # fmt: skip
            try:
                why = _wait(process, task.log, options)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if not why:
            return
        records = read_log(task.log)
        running = records[-1] if records and "outcome" not in records[-1] else None
        if len(records) == before and running is None:
            tail = output.read_text(errors="replace")[-1500:]
            _note(task.log, task.file, f"the process died: {why}\n{tail}")
            return
        if running:
            _note(task.log, running["test"], f"the process died: {why}")


def _note(log: Path, test: str, message: str) -> None:
    record = {"test": test, "outcome": "failed", "message": message, "seconds": 0}
    with log.open("a") as file:
        # The process may have been killed in the middle of a line.
        file.write("\n" + json.dumps(record) + "\n")


def _wait(process: subprocess.Popen[bytes], log: Path, options: Options) -> str:
    """Wait until a process ends; return what went wrong, "" if nothing did."""
    started = time.time()
    while process.poll() is None:
        time.sleep(0.2)
        written = log.stat().st_mtime if log.exists() else 0
        limit = EXACT_IS_SLOWER * options.timeout_s + _GRACE_S if written > started else _IMPORT_S
        if time.time() - max(started, written) > limit:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"no answer in {limit} s"
    code = process.returncode
    # 0 all passed, 1 some failed, 5 nothing was selected; 2 is an interrupted collection, noted.
    if code in (0, 1, 2, 5):
        return ""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _tasks(suite: Suite, checkout: Path, file: str, state: Path, options: Options) -> list[_Task]:
    size = (suite.folder(checkout) / file).stat().st_size
    count = options.jobs if size > _LARGE_BYTES else 1
    stem = file.replace("/", ".").removesuffix(".py")
    return [
        _Task(
            suite=suite, checkout=checkout, file=file, share=f"{i}/{count}",
            log=state / f"{stem}.{i}of{count}.jsonl",
        )
        for i in range(count)
    ]  # fmt: skip


def run_suite(
    suite: Suite,
    checkout: Path,
    files: Sequence[str],
    state: Path,
    options: Options,
    on_done: Callable[[str, dict[str, dict[str, Any]]], None],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Run test files; return for each the results of its tests.

    What `state` already holds is not run again. `on_done` is told of each file that is complete.
    """
    state.mkdir(parents=True, exist_ok=True)
    found = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        started = {
            file: [
                (task, pool.submit(_finish, task, options))
                for task in _tasks(suite, checkout, file, state, options)
            ]
            for file in files
        }
        for file, tasks in started.items():
            results: dict[str, dict[str, Any]] = {}
            for task, future in tasks:
                future.result()
                results |= results_of(task.log)
            found[file] = results
            on_done(file, results)
    return found
