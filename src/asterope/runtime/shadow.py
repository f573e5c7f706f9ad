"""Shadow memory: for each byte of a launch's arrays, who wrote and who read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.ir import ATOMICS, Kernel, Memory, Op, Roots, Type, Value, is_volatile, pointer_of
from asterope.runtime.arrays import Array, Grid

__all__ = ["Checker", "Finding", "Written"]

Written = npt.NDArray[np.bool_]
_Numbers = npt.NDArray[Any]
_MANY = -1


@dataclass(slots=True)
class Finding:
    """One kind of fault at one line; `what` tells of its first time, `count` how often."""

    loc: str
    what: str
    hint: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A pointer parameter: its name, where it points, and the bytes of an element."""

    name: str
    address: int
    start: int
    end: int
    size: int


class _Shadow:
    """Per byte of one range: the last writer and its op, a reader and its op; 0 is nobody.

    Programs and ops count from 1; -1 are several readers.
    """

    def __init__(self, start: int, num_bytes: int, written: Written | None) -> None:
        self.start = start
        self.written = written
        self.writer = np.zeros(num_bytes, np.int32)
        self.write_site = np.zeros(num_bytes, np.int16)
        self.atomic = np.zeros(num_bytes, np.bool_)
        self.reader = np.zeros(num_bytes, np.int32)
        self.read_site = np.zeros(num_bytes, np.int16)


class Checker:
    """Watches the accesses of one launch."""

    def __init__(
        self, kernel: Kernel, grid: Grid, args: Sequence[Array | int | float],
        written: Callable[[int], Written | None],
    ) -> None:  # fmt: skip
        self.memory = Memory(self)
        self.findings: dict[tuple[str, str, str], Finding] = {}
        self._grid = grid
        self._written = written
        self._roots = Roots(kernel)
        self._sites: list[Op] = [Op("none", [], {}, [])]
        self._site_of: dict[Op, int] = {}
        self._parameters: dict[Value, _Parameter] = {}
        self._shadows: dict[int, _Shadow] = {}
        self._order = _Order()
        self._op, self._site, self._program = self._sites[0], 0, 0
        for param, value, arg in zip(kernel.params, kernel.body.args, args, strict=True):
            if isinstance(arg, Array) and arg.start < arg.end:
                self.memory.add_range(param.name, arg.start, arg.end)
                size = max(1, Type(value.type.pointee).bits // 8)
                self._parameters[value] = _Parameter(
                    param.name, arg.address, arg.start, arg.end, size
                )

    # -- the watch ------------------------------------------------------------------------------
    def enter(self, op: Op, program: Sequence[int]) -> None:
        """Take note of which op of which program makes the accesses that follow."""
        x, y, _ = self._grid
        self._op = op
        self._program = 1 + program[0] + x * (program[1] + y * program[2])
        if op not in self._site_of:
            self._site_of[op] = len(self._sites)
            self._sites.append(op)
        self._site = self._site_of[op]

    def look(self, addresses: _Numbers, size: int, *, writes: bool) -> _Numbers:
        """Check accesses; those outside of their array are held back."""
        parameter = self._parameter()
        ranges = self.memory.locate(addresses, size)
        allowed = ranges >= 0
        if parameter is not None:
            home = self.memory.locate(np.array([parameter.start], np.uint64), 1)[0]
            allowed &= ranges == home
        if not allowed.all():
            self._outside(addresses[~allowed], size, parameter, writes=writes)
        atomic = self._op.name in ATOMICS or is_volatile(self._op)
        for number in np.unique(ranges[allowed]).tolist():
            mine = addresses[allowed & (ranges == number)].astype(np.uint64)
            shadow = self._shadow(number)
            touched = (mine - np.uint64(shadow.start)).astype(np.int64)[:, None] + np.arange(size)
            if atomic and writes:
                self._order.meet(self._op, self._program, mine[0].item())
            if writes:
                self._write(shadow, mine, touched, atomic=atomic)
            else:
                self._read(shadow, mine, touched, atomic=atomic)
        return allowed

    def _parameter(self) -> _Parameter | None:
        root = self._roots.root(pointer_of(self._op))
        return self._parameters.get(root) if root is not None else None

    def _shadow(self, number: int) -> _Shadow:
        if number not in self._shadows:
            start, num_bytes = self.memory.range(number)
            self._shadows[number] = _Shadow(start, num_bytes, self._written(start))
        return self._shadows[number]

    # -- what is wrong --------------------------------------------------------------------------
    def _read(
        self, shadow: _Shadow, addresses: _Numbers, touched: _Numbers, *, atomic: bool
    ) -> None:
        if shadow.written is not None:
            never = ~shadow.written[touched].all(axis=1)
            if never.any():
                place = self._place(int(addresses[np.argmax(never)]))
                self._find(
                    "unwritten", f"reads {place}, which nothing has written", never.sum(),
                    "the tensor was made by torch.empty; write it first, or mask the read off",
                )  # fmt: skip
        if atomic:
            return
        self._race(shadow, shadow.writer, shadow.write_site, addresses, touched, "reads", "writes")
        # A reader that is ordered before this one need not be remembered beside it.
        several = self._unordered(shadow.reader[touched])
        shadow.reader[touched] = np.where(several, _MANY, self._program)
        shadow.read_site[touched] = self._site

    def _write(
        self, shadow: _Shadow, addresses: _Numbers, touched: _Numbers, *, atomic: bool
    ) -> None:
        plain = ~shadow.atomic[touched].any(axis=1) if atomic else np.ones(len(addresses), np.bool_)
        self._race(
            shadow, shadow.writer, shadow.write_site, addresses[plain], touched[plain],
            "writes", "writes",
        )  # fmt: skip
        self._race(shadow, shadow.reader, shadow.read_site, addresses, touched, "writes", "reads")
        shadow.writer[touched] = self._program
        shadow.write_site[touched] = self._site
        shadow.atomic[touched] = atomic
        if shadow.written is not None:
            shadow.written[touched] = True

    def _race(
        self, shadow: _Shadow, who: _Numbers, site: _Numbers, addresses: _Numbers,
        touched: _Numbers, does: str, did: str,
    ) -> None:  # fmt: skip
        """Report accesses to bytes that another program has touched, unless ordered after it."""
        others = who[touched]
        foreign = self._unordered(others)
        if not foreign.any():
            return
        row, byte = np.argwhere(foreign)[0]
        other, line = int(others[row, byte]), self._sites[site[touched[row, byte]]].loc
        whom = f"programs {did[:-1]}" if other == _MANY else (
            f"program {self._coordinates(other)} {did}"
        )  # fmt: skip
        self._find(
            f"race {did}", f"{does} {self._place(int(addresses[row]))}, which {whom} at {line}",
            foreign.any(axis=1).sum(),
            "programs of a grid run in any order: use an atomic, or give each its own elements",
        )  # fmt: skip

    def _unordered(self, programs: _Numbers) -> _Numbers:
        """Return which programs are others that no atomic orders before the current one."""
        foreign: _Numbers = (programs != 0) & (programs != self._program)
        for other in np.unique(programs[foreign]).tolist():
            if self._order.is_after(self._program, other):
                foreign &= programs != other
        return foreign

    def _outside(
        self, addresses: _Numbers, size: int, parameter: _Parameter | None, *, writes: bool
    ) -> None:
        does = "writes" if writes else "reads"
        address = int(addresses[0]) & ((1 << 64) - 1)
        if parameter is None:
            what = f"{does} {size} bytes at {address:#x}, which is in no array of the launch"
        else:
            past = address + size - parameter.end
            where = f"{past} bytes past its end" if past > 0 else (
                f"{parameter.start - address} bytes before its start"
            )  # fmt: skip
            what = f"{does} {self._element(parameter, address)}, {where}"
        self._find("outside", what, len(addresses), "mask the access off, or check its offsets")

    def _place(self, address: int) -> str:
        parameter = self._parameter()
        return f"{address:#x}" if parameter is None else self._element(parameter, address)

    @staticmethod
    def _element(parameter: _Parameter, address: int) -> str:
        return f"{parameter.name}[{(address - parameter.address) // parameter.size}]"

    def _coordinates(self, program: int) -> str:
        x, y, _ = self._grid
        program -= 1
        return f"({program % x}, {program // x % y}, {program // (x * y)})"

    def _find(self, kind: str, what: str, count: int, hint: str) -> None:
        loc = self._op.loc
        key = (loc, kind, str(self._parameter()))
        if key in self.findings:
            self.findings[key].count += int(count)
            return
        text = f"program {self._coordinates(self._program)} {what}"
        self.findings[key] = Finding(loc, text, hint, int(count))


class _Order:
    """Which programs are ordered by atomics: a release, then an acquire of the same address.

    Sets of programs are the bits of integers. What a program does after its release counts as
    before it, so a race may go unseen, and none is made up.
    """

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._released: dict[int, int] = {}

    def meet(self, op: Op, program: int, address: int) -> None:
        """Take note of an atomic operation."""
        order = op.attrs["memory_order"]
        if order in ("acquire", "acq_rel"):
            before = self._known.get(program, 0)
            self._known[program] = before | self._released.get(address, 0)
        if order in ("release", "acq_rel"):
            mine = self._known.get(program, 0) | 1 << program
            self._released[address] = self._released.get(address, 0) | mine

    def is_after(self, program: int, other: int) -> bool:
        """Whether what `other` did is ordered before what `program` does now."""
        return other > 0 and bool(self._known.get(program, 0) >> other & 1)
