"""How commands end: exit codes, and errors in one line with a hint."""

from __future__ import annotations

import importlib.util
import platform
import traceback

from asterope import __version__
from asterope.cli.options import OPTION_OF
from asterope.cli.output import say
from asterope.errors import AsteropeError, CheckpointError, ConfigError, OutputError

__all__ = ["INTERRUPTED", "OUR_MISTAKE", "WRONG_INPUT", "explain", "need_torch"]

OUR_MISTAKE, WRONG_INPUT, INTERRUPTED = 1, 2, 130
_HINTS: dict[type[AsteropeError], str] = {
    CheckpointError: "its files are damaged or of different models: copy the checkpoint again",
    OutputError: "free some space, or choose another directory",
}


def need_torch(command: str) -> None:
    """Check that the extra which models need is installed.

    Raises: ConfigError with the command that installs it.
    """
    for library in ("torch", "triton", "safetensors", "tokenizers", "plotly"):
        if importlib.util.find_spec(library) is None:
            raise ConfigError(
                f"needs {library}, which is not installed",
                where=f"asterope {command}",
                hint="pip install 'asterope[torch]'",
            )


def explain(error: BaseException, *, command: str, debug: bool) -> int:
    """Say what went wrong; return the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, AsteropeError):
        where = f"{OPTION_OF.get(error.where, error.where)}: " if error.where else ""
        hint = error.hint or _HINTS.get(type(error), f"see `{command} --help`")
        say(f"error: {_one_line(where + error.what)}")
        say(f"hint: {_one_line(hint)}")
        return error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        say(f"error: {error.filename}: {_one_line(error.strerror or str(error))}")
        say("hint: give a place that this user may read, or write where it is written")
        return WRONG_INPUT
    if isinstance(error, KeyboardInterrupt):
        say("interrupted")
        return INTERRUPTED
    say(f"error: this is a mistake in Asterope: {type(error).__name__}: {_one_line(str(error))}")
    say(
        f"hint: run it again with `asterope --debug ...` and report the traceback (asterope"
        f" {__version__}, Python {platform.python_version()}, {platform.machine()})"
    )
    return OUR_MISTAKE


def _one_line(text: str) -> str:
    return " ".join(text.split())
