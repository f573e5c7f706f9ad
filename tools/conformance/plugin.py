"""The pytest plugin that a run loads into somebody else's tests.

It puts the shims in place, limits the time of a test, takes this process's share of the tests, and
writes each result as a line of JSON at once, so that a run that is killed can go on where it was.
"""

from __future__ import annotations

import contextlib
import json
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from conformance.exact import EXACT_IS_SLOWER, ExactTorch, same_seeds
from conformance.shims import SHIMS

__all__ = ["read_log"]

_MAX_TEXT = 2000
# Where it failed: the file, the line of source, and what it points at.
_PLACE_LINES = 3


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; a last line cut off by a kill is left out."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


class _Log:
    def __init__(self, path: Path) -> None:
        self.done = {r["test"] for r in read_log(path) if "outcome" in r}
        self._file = path.open("a")

    def write(self, **record: Any) -> None:
        """Append a line and hand it to the system, which keeps it if this process is killed."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the runner passes."""
    group = parser.getgroup("conformance")
    group.addoption("--conformance-log", type=Path)
    group.addoption("--conformance-share", default="0/1", help="this process of so many")
    group.addoption("--conformance-sample", type=int, default=1, help="one test of so many")
    group.addoption("--conformance-timeout", type=int, default=120, help="seconds a test")
    group.addoption("--conformance-shims", default="")
    group.addoption("--conformance-not-run", default="{}", help="names to reasons, as JSON")


_stack = contextlib.ExitStack()
_log: _Log | None = None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Open the log and enter the shims, before any file of the suite is imported."""
    global _log  # noqa: PLW0603  pytest's hooks are functions of a module
    options = early_config.known_args_namespace
    _log = _Log(options.conformance_log)
    for name in filter(None, options.conformance_shims.split(",")):
        _stack.enter_context(SHIMS[name]())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the shims."""
    _stack.close()


def _share(name: str, text: str) -> bool:
    index, count = map(int, text.split("/"))
    return zlib.crc32(name.encode()) % count == index


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep this process's share of what is to run and has no result yet."""
    assert _log
    sample = config.getoption("--conformance-sample")
    reasons = json.loads(config.getoption("--conformance-not-run"))
    kept = []
    for number, item in enumerate(items):
        if not _share(item.nodeid, config.getoption("--conformance-share")):
            continue
        if item.nodeid in _log.done:
            continue
        reason = next((r for start, r in reasons.items() if item.nodeid.startswith(start)), "")
        if not reason and number % sample:
            reason = f"one test in {sample} is run"
        if reason:
            _log.write(test=item.nodeid, outcome="deselected", message=reason)
        else:
            kept.append(item)
    items[:] = kept


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note a file that cannot be collected as one test that fails, or is skipped."""
    if report.outcome != "passed":
        assert _log
        message = str(report.longrepr)[-_MAX_TEXT:]
        _log.write(test=report.nodeid, outcome=report.outcome, message=message, seconds=0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart(nodeid: str) -> None:
    """Note what is running, in case it takes the process down."""
    assert _log
    _log.write(test=nodeid)


@contextlib.contextmanager
def _limit(seconds: int) -> Iterator[None]:
    """Interrupt what takes too long."""

    def give_up(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Limit the time of a test; give one that fails by its assertion exact references."""
    seconds = item.config.getoption("--conformance-timeout")
    restore = same_seeds()
    try:
        with _limit(seconds):
            return (yield)
    except AssertionError:
        restore()
        try:
            with _limit(EXACT_IS_SLOWER * seconds), ExactTorch():
                item.runtest()
        except BaseException as error:  # whatever it is, the first failure is the one to tell
            if isinstance(error, KeyboardInterrupt):
                raise
        else:
            item.user_properties.append(("reference", "float64"))
            return None
        raise


def _text(report: pytest.TestReport) -> str:
    """Return what a failure says, and the lines of source that it passed through."""
    longrepr = report.longrepr
    if isinstance(longrepr, tuple):
        return str(longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(longrepr, "reprcrash", None)
    if crash is None:
        return str(longrepr)[-_MAX_TEXT:]
    lines = str(longrepr).splitlines()
    end = next((i for i, line in enumerate(lines) if line.startswith("E ")), len(lines))
    return "\n".join([str(crash.message)[:_MAX_TEXT], *lines[max(0, end - _PLACE_LINES) : end]])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the result of a test: of its call, or of the step before or after that failed."""
    assert _log
    if report.when != "call" and report.outcome == "passed":
        return
    outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
    text = "" if outcome == "passed" else _text(report)
    how = dict(report.user_properties)
    _log.write(test=report.nodeid, outcome=outcome, message=text, seconds=report.duration, **how)
