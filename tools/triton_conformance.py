"""Run Triton's own tests, its tutorials, or a kernel collection's tests against Asterope.

Run it as `python tools/triton_conformance.py CHECKOUT`, with the path of a checkout of Triton at
the release that is installed. Each file runs in processes of its own; what a killed run had done
is not done again. The counts and reasons go into docs/reference/triton_conformance.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from asterope.errors import AsteropeError, ConfigError
from asterope.native import best_isa, sources_digest

sys.path.insert(0, str(Path(__file__).parent))
from conformance import page
from conformance.run import Options, run_suite
from conformance.suites import (
    COLLECTIONS,
    TRITON,
    TUTORIAL_SCRIPTS,
    TUTORIAL_TESTS,
    Suite,
)
from conformance.tutorial import EXACT

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "triton_conformance.md"
STATE = ROOT / "build" / "conformance"
TIMEOUT_S = 120
SCRIPT_TESTS = 5  # a tutorial may take as long as so many tests


def commit_of(checkout: Path) -> str:
    """Return the commit of a checkout, or "" where it is not one of Git."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 and (checkout / ".git").exists() else ""


def about(command: str, commit: str) -> str:
    """Say when, where and with what a run was made."""
    where = f" at commit {commit}" if commit else ""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, Triton {version('triton')}, torch {version('torch')}, "
        f"Python {sys.version.split()[0]}, instruction set {best_isa().name}; "
        f"the checkout{where}; `{command}`."
    )


def state_for(suite: str, *, is_fresh: bool, keeps: bool) -> Path:
    """Return the folder of a run that can be gone on with, emptied if it is of other sources."""
    folder = STATE / suite
    digest = sources_digest("compiler", "formats", "host", "ir", "native", "runtime",
                            "triton_backend")  # fmt: skip
    mark = folder / "sources"
    is_other = mark.exists() and mark.read_text() != digest and not keeps
    if is_fresh or is_other:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(digest)
    return folder


@contextmanager
def caches(folder: Path) -> Iterator[None]:
    """Keep what a run compiles apart from the user's caches, and drop it at the end."""
    for name in ("TRITON_CACHE_DIR", "ASTEROPE_CACHE_DIR"):
        os.environ[name] = str(folder / "cache" / name.lower())
    try:
        yield
    finally:
        shutil.rmtree(folder / "cache", ignore_errors=True)


def report(file: str, results: dict[str, dict[str, Any]]) -> None:
    """Print a file's counts."""
    found = page.summarise(results)
    counts = ", ".join(f"{found[o]} {o}" for o in ("passed", "failed", "skipped", "deselected"))
    print(f"{file}: {counts}", flush=True)
    for reason, count, example in found["reasons"]["failed"]:
        print(f"    {count} x {reason} ({example})", flush=True)


def tests(
    suite: Suite, checkout: Path, files: list[str], state: Path, options: Options
) -> dict[str, page.Data]:
    """Run a suite's files, all of them if none are named; return their summaries.

    Raises: ConfigError if the checkout has none.
    """
    known = suite.files(checkout)
    if not known:
        raise ConfigError(
            f"there is no {suite.root}/{suite.tests[0]}", where=str(checkout),
            hint=f"give the path of a checkout of {suite.title}",
        )  # fmt: skip
    chosen = [f for f in known if not files or any(name in f for name in files)]
    found = run_suite(suite, checkout, chosen, state, options, report)
    return {file: page.summarise(results) for file, results in found.items()}


def run_script(script: Path, timeout_s: int) -> dict[str, Any]:
    """Run a tutorial; return its result, as that of a test."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    begun, reference = time.perf_counter(), ""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "conformance.tutorial", str(script)],
            capture_output=True, text=True, check=False, timeout=timeout_s,
            env={**os.environ, "PYTHONPATH": path, "TRITON_DEFAULT_BACKEND": "maia"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        outcome, message = "failed", f"took longer than {timeout_s} s"
    else:
        lines = done.stderr.strip().splitlines()[-30:]
        outcome = "failed" if done.returncode else "passed"
        message = "\n".join([*lines[-1:], *lines])
        reference = "float64" if done.stdout.rstrip().endswith(EXACT) else ""
    return {
        "outcome": outcome, "message": message, "seconds": time.perf_counter() - begun,
        "reference": reference,
    }  # fmt: skip


def tutorials(
    checkout: Path, files: list[str], state: Path, options: Options
) -> dict[str, page.Data]:
    """Run the tutorials one after the other, all if none are named; return a summary of each."""
    folder = checkout / TUTORIAL_TESTS.root
    found = {}
    scripts = sorted(p for glob in TUTORIAL_SCRIPTS for p in folder.glob(f"{glob}.py"))
    for script in (p for p in scripts if not files or any(name in p.name for name in files)):
        results = {script.name: run_script(script, SCRIPT_TESTS * options.timeout_s)}
        report(script.name, results)
        found[script.name] = page.summarise(results)
    return found | tests(TUTORIAL_TESTS, checkout, files, state, options)


def main(
    checkout: Annotated[Path, typer.Argument(help="A checkout of Triton or of the collection.")],
    files: Annotated[list[str] | None, typer.Option(help="Only files with this in them.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at once.")] = os.cpu_count() or 1,
    out: Annotated[Path, typer.Option(help="The page to write.")] = PAGE,
    collection: Annotated[str, typer.Option(help=f"One of {', '.join(COLLECTIONS)}.")] = "",
    only_tutorials: Annotated[bool, typer.Option("--tutorials", help="The tutorials.")] = False,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds a test may take.")] = TIMEOUT_S,
    sample: Annotated[int, typer.Option(min=1, help="Run one test of so many.")] = 1,
    keyword: Annotated[str, typer.Option("-k", help="pytest's -k.")] = "",
    fresh: Annotated[bool, typer.Option(help="Forget what an earlier run did.")] = False,
    keep: Annotated[bool, typer.Option(help="Go on though our sources have changed.")] = False,
) -> None:
    """Run somebody else's tests on Asterope and write what became of them."""
    checkout = checkout.resolve()
    options = Options(jobs=jobs, timeout_s=timeout, sample=sample, keyword=keyword)
    if collection and collection not in COLLECTIONS:
        hint = f"use one of {', '.join(COLLECTIONS)}"
        raise ConfigError(f"there is no {collection!r}", where="--collection", hint=hint)
    suite = COLLECTIONS[collection] if collection else TRITON
    name = "tutorials" if only_tutorials else suite.name
    # A part of the tests is a look, not a result to go on from.
    is_part = bool(keyword) or sample > 1
    state = state_for(
        f"{name}-part" if is_part else name, is_fresh=fresh or bool(keyword), keeps=keep
    )
    with caches(state):
        if only_tutorials:
            found = tutorials(checkout, files or [], state, options)
        else:
            found = tests(suite, checkout, files or [], state, options)
    command = "python tools/triton_conformance.py CHECKOUT"
    command += f" --collection {collection}" if collection else ""
    command += " --tutorials" if only_tutorials else ""
    command += "".join(f" --files {name}" for name in files or [])
    command += f" --sample {sample}" if sample > 1 else ""
    command += f" --timeout {timeout}" if timeout != TIMEOUT_S else ""
    if keyword:
        return
    data = page.load(out.with_suffix(".json"))
    description: dict[str, Any] = {
        "title": "The tutorials" if only_tutorials else suite.title,
        "about": about(command, commit_of(checkout)),
        "not_run": {} if only_tutorials else dict(suite.not_run),
        "needs": [] if only_tutorials else list(suite.needs),
    }
    page.add_files(data, name, description, found)
    page.save(out.with_suffix(".json"), data)
    out.write_text(page.render(data))
    print(f"wrote {out}", file=sys.stderr)


if __name__ == "__main__":
    try:
        typer.run(main)
    except AsteropeError as error:
        sys.exit(str(error))
