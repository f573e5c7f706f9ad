"""Data to standard output, words and progress to standard error."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from asterope.errors import OutputError

__all__ = ["BROKEN_PIPE", "is_terminal", "progress_bars", "say", "show", "write", "write_json"]

BROKEN_PIPE = 141
_WIDTH_OF_FILES = 200


def is_terminal() -> bool:
    """Tell whether a person reads standard output."""
    return sys.stdout.isatty()


def write(text: str) -> None:
    """Write data; whoever stops reading, as `head` does, ends the program silently.

    Raises: SystemExit when nobody reads any more; OutputError when the disk is full.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes at exit too, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(BROKEN_PIPE) from None
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = f"cannot write: {error.strerror}"
        raise OutputError(what, where="standard output") from None


def write_json(value: Any) -> None:
    """Write data for machines."""
    write(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def show(renderables: Iterable[RenderableType]) -> None:
    """Write tables and text, an empty line between them."""
    width = shutil.get_terminal_size().columns if is_terminal() else _WIDTH_OF_FILES
    text = io.StringIO()
    console = Console(file=text, force_terminal=is_terminal(), width=width, highlight=False)
    for index, renderable in enumerate(renderables):
        if index:
            console.print()
        console.print(renderable)
    write("".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines()))


def say(text: str) -> None:
    """Write words for people."""
    print(text, file=sys.stderr, flush=True)


class _Bars:
    """One bar a stage, made when the stage first reports; before that, one that says *start*."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}
        self.start: TaskID | None = bars.add_task("start", total=None)

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self.start is not None:
            self.bars.remove_task(self.start)
            self.start = None
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(stage, total=total or None)
        self.bars.update(self.tasks[stage], completed=done, total=total or None)


class _Lines:
    """One line a stage, for logs."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self.said:
            self.said.add(stage)
            say(stage)


@contextmanager
def progress_bars() -> Iterator[_Bars | _Lines]:
    """Give what to call with stage, done and total; a total of 0 is not known yet.

    On a terminal these are bars with the time that each stage has taken and will, which vanish;
    elsewhere a line a stage.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=32),
        TaskProgressColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bars:
        yield _Bars(bars)
