"""Scripts of the user's that a command runs as Python would."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer

from asterope.errors import AsteropeError, ConfigError

__all__ = ["PASS_ON", "Arguments", "Script", "run_script"]

# What follows the script is the script's own.
PASS_ON = {"allow_interspersed_args": False, "ignore_unknown_options": False}

Script = Annotated[Path, typer.Argument(help="Python script that launches Triton kernels.")]
Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="[ARGS]...", help="Arguments of the script.")
]


def run_script(script: Path, arguments: Sequence[str]) -> AsteropeError | None:
    """Run a script as Python would, what it prints going to standard error.

    Returns what to end with if it fails.

    Raises: ConfigError if there is no such file.
    """
    if not script.is_file():
        raise ConfigError(f"there is no script {script}", where="SCRIPT", hint="give a Python file")
    with _as_main(script, arguments), redirect_stdout(sys.stderr):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as stop:
            if stop.code in (None, 0):
                return None
            return ConfigError(f"the script ended with {stop.code!r}", where=str(script))
        except AsteropeError as error:
            return error
        except Exception as error:
            traceback.print_exception(error.with_traceback(_own_frames(error, script)))
            what = f"the script raised {type(error).__name__}: {error}"
            return ConfigError(what, where=str(script), hint="run it with python first")
    return None


def _own_frames(error: Exception, script: Path) -> TracebackType | None:
    """Return the traceback from the script's own first frame on."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != str(script):
        frame = frame.tb_next
    return frame or error.__traceback__


@contextmanager
def _as_main(script: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Let a script see its own arguments, and import its neighbours."""
    argv, path = sys.argv, list(sys.path)
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent.absolute()))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path
