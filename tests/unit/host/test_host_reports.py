"""What native code says while it runs is what the interpreter says."""

from __future__ import annotations

import numpy as np
import pytest

from asterope.compiler import find_tiles, simplify
from asterope.errors import DeviceAssertError
from asterope.host import HostKernel
from asterope.ir import FLOATS, INTEGERS, Type, dtype_of, interpret
from asterope.native import available_isas, isa_named
from ir_builder import Writer

ALL = (*INTEGERS, *FLOATS)


def said(capsys, run):
    """Return what a run prints, and the error that ends it."""
    capsys.readouterr()
    try:
        run()
    except DeviceAssertError as error:
        return capsys.readouterr().out, str(error)
    return capsys.readouterr().out, ""


def both(capsys, kernel, arrays, grid=(1, 1, 1), isa=None):
    """Return what both readers say, as they see the same arrays."""
    host = HostKernel(kernel, isa_named(isa) if isa else None)
    first = said(capsys, lambda: interpret(kernel, grid, [a.copy() for a in arrays]))
    addresses = [a.ctypes.data for a in arrays]
    return first, said(capsys, lambda: host.launch(grid, addresses))


def print_op(w, *values, prefix=" v: ", hex_=False, signed=True):
    w.op("print", *values, prefix=prefix, hex=hex_, signed=(signed,) * len(values), threads=1)


@pytest.mark.parametrize("isa", available_isas())
def test_every_element_type_is_printed_as_by_the_interpreter(capsys, isa):
    w, arrays = Writer(), []
    rng = np.random.default_rng(0)
    for elem in ALL:
        w.param(f"x_{elem}", f"ptr<{elem}>")
        dtype = dtype_of(Type(elem))
        arrays.append((rng.standard_normal(15) * 50).astype(np.float32).astype(dtype))
        block, scalar = w.load(f"x_{elem}", (3, 5)), w.load(f"x_{elem}")
        print_op(w, block, scalar)
        print_op(w, block, hex_=True)
        print_op(w, scalar, signed=False)
    print_op(w, prefix=" no operand")
    expected, got = both(capsys, w.done(), arrays, isa=isa)
    assert got == expected
    assert got[0].count("\n") == len(ALL) * 32 + 1


def reporter():
    """A kernel that prints and checks x[program, i] < 50 inside a loop and a branch."""
    w = Writer(x="ptr<i32>")
    pid = w("program_id", to="i32", axis=0)
    pid = w("add", pid, w("mul", w("program_id", to="i32", axis=1), w.const("i32", 3)))

    def body(i):
        base = w("addptr", w["x"], w("add", w("mul", pid, w.const("i32", 32)), i))
        block = w.load_at(w("addptr", w.broadcast(base, (20,)), w.iota(20)))
        is_even = w.compare("eq", w("and", pid, w.const("i32", 1)), w.const("i32", 0))
        w.if_(is_even, lambda: print_op(w, block) or ())
        small = w.compare("slt", block, w.const("i32[20]", 50))
        w.op("assert", small, message="large")
        return []

    w.for_(0, 12, 4, [], body)
    return w.done()


def test_prints_and_failures_in_loops_and_branches_are_the_interpreters(capsys):
    kernel = reporter()
    for bad in (None, 0, 27 + 32 * 2, 32 * 5 + 27):
        x = np.arange(32 * 6, dtype=np.int32) % 49
        if bad is not None:
            x[bad] = 99
        expected, got = both(capsys, kernel, [x], (3, 2, 1))
        assert got == expected
        assert bool(got[1]) == (bad is not None)
        assert both(capsys, simplify(find_tiles(kernel)), [x], (3, 2, 1)) == (expected, got)


def test_the_first_failing_program_of_many_is_the_one_reported(capsys):
    w = Writer(x="ptr<i8>")
    pid = w("program_id", to="i32", axis=0)
    base = w("addptr", w["x"], w("mul", pid, w.const("i32", 64)))
    block = w.load_at(w("addptr", w.broadcast(base, (64,)), w.iota(64)))
    w.op("assert", w.compare("eq", block, w.const("i8[64]", 0)), message="not 0")
    kernel = w.done()
    x = np.zeros((8192, 64), np.int8)
    x[5000:, 3] = 1
    x[5000, 40] = 1
    for _ in range(5):
        with pytest.raises(DeviceAssertError, match=r"program \(5000, 0, 0\), element \(3\)"):
            HostKernel(kernel).launch((8192, 1, 1), [x.ctypes.data])


def test_a_program_stops_at_its_failed_assertion():
    w = Writer(x="ptr<i32>", y="ptr<i32>")
    value = w.load("x")
    w.store("y", w.const("i32", 1))
    w.op("assert", w.compare("sgt", value, w.const("i32", 0)), message="")
    w.store("y", w.const("i32", 2))
    kernel = w.done()
    for given, left in ((1, 2), (0, 1)):
        x, y = np.array([given], np.int32), np.zeros(1, np.int32)
        try:
            HostKernel(kernel).launch((1, 1, 1), [x.ctypes.data, y.ctypes.data])
        except DeviceAssertError:
            assert given == 0
        assert y[0] == left


class Broken:
    """A file that cannot be written to."""

    def write(self, text):
        raise BrokenPipeError(text)


def test_an_error_while_printing_comes_out_of_the_launch(monkeypatch):
    w = Writer()
    print_op(w, w.const("i32", 1))
    print_op(w, w.const("i32", 2))
    monkeypatch.setattr("sys.stdout", Broken())
    with pytest.raises(BrokenPipeError, match="v: 1"):
        HostKernel(w.done()).launch((4, 1, 1), [])


def test_a_loop_steps_over_its_end_near_the_widest_number():
    w = Writer(y="ptr<i32>", lo="i32", hi="i32", step="i32")
    (count,) = w.for_(w["lo"], w["hi"], w["step"], [w.const("i32", 0)],
                      lambda i, n: [w("add", n, w.const("i32", 1))])  # fmt: skip
    w.store("y", count)
    host, top = HostKernel(w.done()), 2**31 - 1
    for lo, hi, step in ((top - 5, top, 4), (-top, top, top), (0, top, top), (top, -top, 3)):
        y = np.zeros(1, np.int32)
        host.launch((1, 1, 1), [y.ctypes.data, lo, hi, step])
        assert y[0] == len(range(lo, hi, step))
