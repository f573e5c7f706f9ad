"""ASTEROPE_SANITIZE=1: run kernels in the reference interpreter and check every access.

What it finds: accesses outside of the array that a pointer came from, reads of memory that nobody
has written, and data races between programs. Programs run one after the other; that two of them
touch the same bytes, one writing, without an atomic that orders them, shows in any order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from asterope.errors import KernelError, SanitizerError
from asterope.ir import interpret
from asterope.native import setting
from asterope.runtime.arrays import Array, Grid
from asterope.runtime.kernel import TileKernel
from asterope.runtime.shadow import Checker, Finding, Written
from asterope.sim import Region

__all__ = ["is_sanitizing", "know_written", "launch_checked"]

_MOST_SAID = 20
_lookups: list[Callable[[int], Written | None]] = []


def is_sanitizing() -> bool:
    """Whether the user asked for checks."""
    return setting("ASTEROPE_SANITIZE") not in ("", "0")


def know_written(lookup: Callable[[int], Written | None]) -> None:
    """Ask `lookup` which bytes of the memory that begins at an address were ever written.

    It returns a bool for each byte, which launches update, or None where all count as written.
    """
    _lookups.append(lookup)


def _written(start: int) -> Written | None:
    found = (lookup(start) for lookup in _lookups)
    return next((f for f in found if f is not None), None)


def launch_checked(kernel: TileKernel, grid: Grid, args: Sequence[Array | int | float]) -> None:
    """Run a kernel over a grid, checking; what is found goes to standard error.

    Raises: SanitizerError with the first finding; KernelError for a pointer of unknown extent.
    """
    for param, arg in zip(kernel.kernel.params, args, strict=True):
        if isinstance(arg, Array) and not Region(arg.address, arg.start, arg.end).is_known:
            raise KernelError(
                f"{param.name} is a bare address, and what lies behind it cannot be checked",
                where=kernel.name,
                hint="pass the tensor itself, or run without ASTEROPE_SANITIZE",
            )
    checker = Checker(kernel.kernel, grid, args, _written)
    addresses = [a.address if isinstance(a, Array) else a for a in args]
    interpret(kernel.kernel, grid, addresses, memory=checker.memory)
    if not checker.findings:
        return
    findings = list(checker.findings.values())
    for finding in findings[:_MOST_SAID]:
        print(f"asterope: {_text(finding)}", file=sys.stderr)
    rest = len(findings) - 1
    more = f" (and {rest} more, on standard error)" if rest else ""
    raise SanitizerError(
        findings[0].what + more, where=findings[0].loc or kernel.name, hint=findings[0].hint
    )


def _text(finding: Finding) -> str:
    times = f" ({finding.count} times)" if finding.count > 1 else ""
    return f"{finding.loc}: {finding.what}{times}"
