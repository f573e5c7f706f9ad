"""The command `asterope`: its commands, its exit codes, and where errors end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from asterope import __version__
from asterope.cli import chips, estimates, models, models_in_hand
from asterope.cli.check import check
from asterope.cli.errors import WRONG_INPUT, explain
from asterope.cli.output import say, write
from asterope.cli.power import show_power
from asterope.cli.run import run
from asterope.cli.script import PASS_ON
from asterope.cli.sensitivity import sensitivity
from asterope.cli.trace import trace
from asterope.cli.train import train

__all__ = ["app", "main"]

_EPILOG = """
**Exit codes:** 0 done; 1 a mistake in Asterope; 2 wrong input, explained in one line;
130 interrupted.

Data goes to standard output, words and progress to standard error; every command has `--json`.
"""

app = typer.Typer(
    name="asterope",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run)
app.command("quantize")(models_in_hand.quantize)
app.command("train")(train)
app.command("eval")(models_in_hand.evaluate)
app.command("sensitivity")(sensitivity)
app.command("generate")(models_in_hand.generate)
app.command("simulate")(estimates.simulate)
app.command("cost")(estimates.cost)
app.command("check", context_settings=PASS_ON)(check)
app.command("trace", context_settings=PASS_ON)(trace)
chips.app.command("power")(show_power)
app.add_typer(chips.app, name="chips")
app.command("models")(models.list_models)


def _version(wanted: bool) -> None:
    if wanted:
        write(f"asterope {__version__}\n")
        raise typer.Exit


@app.callback()
def asterope(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Quantize, run, time and price language models on an accelerator you do not have.

    Asterope is an open Maia 200 in software.

    Example: `asterope run --chip maia200 --format mxfp4`
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    # Before torch is loaded: its threads would spin for milliseconds behind each of its operations,
    # on the cores that our kernels want next.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    args = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        _write_any_letter(stream)
    try:
        code = app(args, prog_name="asterope", standalone_mode=False)
        write("")
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException as error:
        if _is_usage_error(error):
            return _explain_usage(error)
        command = next((a for a in args if not a.startswith("-")), "")
        return explain(error, command=f"asterope {command}".strip(), debug="--debug" in args)
    return code if isinstance(code, int) else 0


def _write_any_letter(stream: Any) -> None:
    """Make a stream of a limited encoding write `?` where it has no letter."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def _is_usage_error(error: BaseException) -> bool:
    # Typer exports only leaves of the tree of its usage errors.
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _explain_usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "asterope"
    if type(error).__name__ == "NoArgsIsHelpError":
        write(f"{error.format_message()}\n")
        return WRONG_INPUT
    say(f"error: {command}: {' '.join(error.format_message().split())}")
    say(f"hint: see `{command} --help`")
    return WRONG_INPUT
