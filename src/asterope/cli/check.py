"""`asterope check`: a script's Triton kernels with every access checked."""

from __future__ import annotations

import os

from asterope.cli.errors import need_torch
from asterope.cli.output import say
from asterope.cli.script import Arguments, Script, run_script

__all__ = ["check"]


def check(script: Script, arguments: Arguments = None) -> None:
    """Run a script and check each access to memory of its Triton kernels.

    Finds accesses outside of the array that a pointer came from, reads of memory that nobody has
    written, and data races between programs, with the line, the program and the element. Kernels
    run slowly. The same as ASTEROPE_SANITIZE=1 python SCRIPT.

    Example: `asterope check matmul.py --size 64`
    """
    need_torch("check")
    os.environ["ASTEROPE_SANITIZE"] = "1"
    failure = run_script(script, arguments or [])
    if failure is not None:
        raise failure
    say("no kernel did anything wrong")
