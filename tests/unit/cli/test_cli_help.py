"""What `--help` promises: examples that work, exit codes, and words where they belong."""

from __future__ import annotations

import re
import shlex

import pytest
import typer.main

from asterope import __version__
from asterope.cli import app

COMMANDS = (
    "run",
    "quantize",
    "train",
    "eval",
    "sensitivity",
    "generate",
    "simulate",
    "cost",
    "chips",
    "chips show",
    "models",
)
SLOW = ("cost", "eval", "run", "sensitivity", "simulate", "train")
WEIGHTS = "stdlib-llama"


def example_of(command):
    """Return the example in a command's help."""
    found = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    return re.search(r"Example: `(.*)`", found.help).group(1)


def args_of(command, checkpoint):
    """Return the words of the example, with a small checkpoint in place of the shipped one."""
    words = shlex.split(example_of(command).split(" > ")[0])
    assert words[0] == "asterope"
    return [str(checkpoint) if word == WEIGHTS else word for word in words[1:]]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_json(command, asterope):
    ended = asterope(*command.split(), "--help")
    assert ended.code == 0
    assert "Example: asterope " in ended.out
    assert "--json" in ended.out
    assert ended.err == ""


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in SLOW])
def test_the_example_of_a_command_works(command, asterope, checkpoint):
    assert asterope(*args_of(command, checkpoint)).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", SLOW)
def test_the_example_of_a_slow_command_works(command, asterope, checkpoint):
    args = args_of(command, checkpoint)
    # An example of `run` leaves its checkpoint out.
    assert asterope(*args[:1], *[checkpoint] * (command == "run"), *args[1:]).code == 0


def test_help_states_the_exit_codes(asterope):
    text = asterope("--help").out
    assert "2 wrong input" in text
    for command in COMMANDS:
        assert command.split()[0] in text


def test_version_goes_to_standard_output(asterope):
    ended = asterope("--version")
    assert (ended.code, ended.out, ended.err) == (0, f"asterope {__version__}\n", "")


def test_no_command_shows_the_help_and_fails(asterope):
    ended = asterope()
    assert ended.code == 2
    assert "Usage: asterope" in ended.out


def test_debug_shows_the_traceback_and_then_the_line(asterope):
    ended = asterope("--debug", "chips", "show", "maia300")
    assert ended.code == 2
    assert "Traceback" in ended.err
    assert ended.err.splitlines()[-2].startswith("error: chip: 'maia300'")
