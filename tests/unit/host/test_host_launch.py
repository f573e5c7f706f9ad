from __future__ import annotations

import re
import threading

import numpy as np
import pytest

from asterope.errors import KernelError
from asterope.host import HostKernel
from asterope.ir import FLOATS, INTEGERS, Type, dtype_of
from asterope.native import available_isas, isa_named
from ir_builder import Writer, assert_same_bits, extents_of


def scalar_kernel(elem):
    w = Writer(s=elem, y="ptr<fp64>" if elem in FLOATS else "ptr<i64>")
    how = {"fp64": None, "i64": None}.get(elem, "float" if elem in FLOATS else "sext")
    wide = w.convert(w["s"], "fp64" if elem in FLOATS else "i64", how) if how else w["s"]
    w.store("y", wide)
    return w.done()


@pytest.mark.parametrize("elem", FLOATS)
@pytest.mark.parametrize("number", [0.5, -3.0, 0.1, 300.1, -0.0, 1e-9])
def test_float_arguments_are_rounded_to_their_type(elem, number):
    if elem not in ("e4m3", "e4m3fnuz") or abs(number) < 200:
        assert_same_bits(scalar_kernel(elem), [number, np.zeros(1)])


@pytest.mark.parametrize("elem", ["fp32", "fp16", "bf16", "e5m2"])
@pytest.mark.parametrize("number", [1e300, -1e300, float("inf"), float("nan"), 3.5e38])
def test_float_arguments_that_are_too_large_are_infinite(elem, number):
    assert_same_bits(scalar_kernel(elem), [number, np.zeros(1)])


@pytest.mark.parametrize("elem", INTEGERS)
@pytest.mark.parametrize("number", [0, 1, -1, 130, 2**31, 2**63, -(2**63), True])
def test_integer_arguments_wrap_to_their_width(elem, number):
    kernel = scalar_kernel(elem)
    out = np.zeros(1, np.int64)
    HostKernel(kernel).launch((1, 1, 1), [number, out.ctypes.data])
    bits = Type(elem).bits
    low = int(number) % 2**bits
    assert out[0] == (low - 2**bits if low >> (bits - 1) else low)


@pytest.mark.parametrize(
    ("elem", "number"),
    [("i32", "seven"), ("i32", None), ("i32", float("nan")), ("i32", float("inf")), ("i32", 1.5),
     ("fp32", "x"), ("fp32", None), ("fp16", None), ("ptr<fp32>", -1), ("ptr<fp32>", 2**64),
     ("ptr<fp32>", None), ("ptr<fp32>", 1.5)],
)  # fmt: skip
def test_an_argument_that_does_not_fit_is_refused_by_kernel_and_reason(elem, number):
    kernel = Writer(s=elem).done()
    with pytest.raises(KernelError, match=r"^k: .*argument .*does not fit"):
        HostKernel(kernel).launch((1, 1, 1), [number])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_number_of_arguments_is_checked(count):
    kernel = Writer(a="i32", b="i32").done()
    with pytest.raises(KernelError, match=rf"^k: takes 2 arguments, got {count}"):
        HostKernel(kernel).launch((1, 1, 1), [0] * count)


def counting_kernel():
    """Every program adds its three indices, packed, at its own place."""
    w = Writer(y="ptr<i32>")
    x, y, z = (w("program_id", to="i32", axis=d) for d in range(3))
    width, height = (w("num_programs", to="i32", axis=d) for d in (0, 1))
    place = w("add", w("mul", w("add", w("mul", z, height), y), width), x)
    hundred = w.const("i32", 100)
    packed = w("add", w("mul", w("add", w("mul", z, hundred), y), hundred), x)
    at = w("addptr", w["y"], place)
    w.store_at(at, w("add", w.load_at(at), w("add", packed, w.const("i32", 1))))
    return w.done()


@pytest.mark.parametrize("grid", [(1, 1, 1), (5, 1, 1), (1, 7, 1), (2, 3, 4), (33, 2, 3)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_program_of_the_grid_runs_exactly_once(monkeypatch, grid, threads):
    monkeypatch.setenv("ASTEROPE_NUM_THREADS", str(threads))
    count = int(np.prod(grid))
    out = np.zeros(count, np.int32)
    HostKernel(counting_kernel()).launch(grid, [out.ctypes.data], extents_of([out]))
    expected = [
        (z * 100 + y) * 100 + x + 1
        for z in range(grid[2]) for y in range(grid[1]) for x in range(grid[0])
    ]  # fmt: skip
    assert out.tolist() == expected


@pytest.mark.parametrize("threads", [1, 2])
def test_large_grids_run_every_program_once_too(monkeypatch, threads):
    monkeypatch.setenv("ASTEROPE_NUM_THREADS", str(threads))
    w = Writer(y="ptr<i32>")
    first = w("mul", w("program_id", to="i32", axis=0), w.const("i32", 64))
    base = w("addptr", w["y"], first)
    w.store_at(w.pointers(base, (64,)), w("add", w.load_at(w.pointers(base, (64,))), w.iota(64, 1)))
    out = np.zeros(64 * 5000, np.int32)
    HostKernel(w.done()).launch((5000, 1, 1), [out.ctypes.data], extents_of([out]))
    np.testing.assert_array_equal(out.reshape(5000, 64), np.tile(np.arange(1, 65), (5000, 1)))


@pytest.mark.parametrize("grid", [(0, 1, 1), (4, 0, 1), (4, 1, 0)])
def test_an_empty_grid_runs_nothing(grid):
    HostKernel(counting_kernel()).launch(grid, [0])


def test_one_kernel_can_be_launched_from_many_threads():
    """Scratch memory belongs to a thread: programs that need it do not disturb each other."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    x = w.load("x", (32, 32))
    product = w("dot", x, x, x, to=x.type, order="sequential")
    w.store("y", w("transpose", product, to=x.type, order=(1, 0)))
    host = HostKernel(w.done())
    inputs = np.random.default_rng(0).standard_normal((6, 32, 32)).astype(np.float32)
    outputs = np.zeros((6, 20, 32, 32), np.float32)

    def work(i):
        for k in range(20):
            y = outputs[i, k]
            host.launch((1, 1, 1), [inputs[i].ctypes.data, y.ctypes.data], None)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(6):
        assert len({outputs[i, k].tobytes() for k in range(20)}) == 1
        expected = (inputs[i] @ inputs[i] + inputs[i]).T
        np.testing.assert_allclose(outputs[i, 0], expected, rtol=1e-4, atol=1e-3)


def test_scratch_grows_from_a_small_kernel_to_a_large_one_and_back():
    hosts, outputs = [], []
    for size in (16, 64, 16, 128):
        w = Writer(x="ptr<i32>", y="ptr<i32>")
        x = w.load("x", (size, 2))
        turned = w("transpose", x, to=Type("i32", (2, size)), order=(1, 0))
        w.store("y", w("reshape", turned, to=Type("i32", (2 * size,))))
        hosts.append(HostKernel(w.done()))
        outputs.append((np.arange(2 * size, dtype=np.int32), np.zeros(2 * size, np.int32)))
    for host, (x, y) in zip(hosts, outputs, strict=True):
        host.launch((1, 1, 1), [x.ctypes.data, y.ctypes.data], None)
        np.testing.assert_array_equal(y, x.reshape(-1, 2).T.reshape(-1))


# -- what is compiled -----------------------------------------------------------------------------
def test_compiled_kernels_are_found_on_disk_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ASTEROPE_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("ASTEROPE_NO_CACHE", raising=False)
    out = np.zeros(1, np.int32)

    def objects():
        return {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.o")}

    HostKernel(counting_kernel()).launch((1, 1, 1), [out.ctypes.data], extents_of([out]))
    first = objects()
    HostKernel(counting_kernel()).launch((1, 1, 1), [out.ctypes.data], extents_of([out]))
    assert len(first) == 1
    assert objects() == first
    HostKernel(counting_kernel()).launch((1, 1, 1), [out.ctypes.data])
    assert len(objects()) == 2, "arrays that may overlap need other code"
    assert out[0] == 3


def test_kernels_that_differ_in_anything_have_different_code(tmp_path, monkeypatch):
    monkeypatch.setenv("ASTEROPE_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("ASTEROPE_NO_CACHE", raising=False)
    results = []
    for order in ("ab", "ba"):
        w = Writer(a="ptr<i32>", b="ptr<i32>", y="ptr<i32>")
        w.store("y", w("sub", *(w.load(name) for name in order)))
        arrays = [np.array([v], np.int32) for v in (5, 3, 0)]
        HostKernel(w.done()).launch((1, 1, 1), [a.ctypes.data for a in arrays], extents_of(arrays))
        results.append(int(arrays[2][0]))
    assert results == [2, -2]


def test_every_level_is_compiled_for_its_own_instruction_set(tmp_path, monkeypatch):
    monkeypatch.setenv("ASTEROPE_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("ASTEROPE_NO_CACHE", raising=False)
    out = np.zeros(1, np.int32)
    for isa in available_isas():
        HostKernel(counting_kernel(), isa_named(isa)).launch((1, 1, 1), [out.ctypes.data])
    assert len(list(tmp_path.rglob("*.o"))) == len(available_isas())
    assert out[0] == len(available_isas())


def test_the_environment_chooses_the_level(monkeypatch):
    monkeypatch.setenv("ASTEROPE_ISA", "portable")
    assert HostKernel(counting_kernel()).isa.name == "portable"
    assert not re.search("zmm|ymm", HostKernel(counting_kernel()).isa.llvm_features)
    assert dtype_of(Type("i32")) == np.int32
