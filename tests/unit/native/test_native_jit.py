from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import threading

import pytest
from file_limits import no_file_larger_than

from asterope.native import (
    ISAS,
    Library,
    available_isas,
    compile_object,
    disassemble,
    isa_named,
    load_library,
)

PORTABLE = ISAS["portable"]


def returning(number):
    return f"define i64 @f() {{\n  ret i64 {number}\n}}\n"


def call(library):
    return ctypes.CFUNCTYPE(ctypes.c_int64)(library.symbols["f"])()


def load(key, number, isa=PORTABLE):
    """Load a function that returns a number; also tell whether its text was asked for."""
    written = []

    def write():
        written.append(key)
        return returning(number)

    return call(load_library(key, isa, ["f"], write)), bool(written)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ASTEROPE_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("ASTEROPE_NO_CACHE", raising=False)
    return tmp_path


def files_in(cache):
    return sorted(p for p in cache.rglob("*") if p.is_file())


def test_the_second_load_of_a_key_compiles_nothing(cache):
    assert load("a", 1) == (1, True)
    assert load("a", 2) == (1, False)
    assert load("b", 2) == (2, True)
    assert len(files_in(cache)) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "half a checksum", "text"])
def test_a_damaged_file_is_compiled_again_and_repaired(cache, damage):
    load("a", 1)
    (path,) = files_in(cache)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes(
        {
            "truncated": whole[:-1],
            "flipped": bytes(flipped),
            "empty": b"",
            "half a checksum": whole[:16],
            "text": b"not an object file",
        }[damage]
    )
    assert load("a", 1) == (1, True)
    assert path.read_bytes() == whole
    assert load("a", 1) == (1, False)


def test_keys_of_two_instruction_sets_are_two_files(cache):
    for isa in available_isas():
        assert load("a", 7, isa_named(isa)) == (7, True)
    assert len(files_in(cache)) == len(available_isas())


@pytest.mark.parametrize("where", ["/proc/asterope", "a file"])
def test_a_cache_that_cannot_be_written_costs_only_compile_time(cache, monkeypatch, where):
    (cache / "a file").write_text("in the way")
    monkeypatch.setenv("ASTEROPE_CACHE_DIR", str(cache / where))
    assert load("a", 3) == (3, True)
    assert load("a", 4) == (4, True)


def test_a_full_disk_costs_only_compile_time_and_leaves_nothing(cache):
    with no_file_larger_than(100):
        assert load("a", 6) == (6, True)
        assert load("a", 6) == (6, True)
    assert files_in(cache) == []
    assert load("a", 6) == (6, True)
    assert load("a", 6) == (6, False)


def test_no_cache_is_written_when_switched_off(cache, monkeypatch):
    monkeypatch.setenv("ASTEROPE_NO_CACHE", "1")
    assert load("a", 5) == (5, True)
    assert files_in(cache) == []


def test_libraries_with_equal_symbols_do_not_mix(cache):
    libraries = [load_library(str(i), PORTABLE, ["f"], lambda: returning(i)) for i in range(4)]
    assert [call(library) for library in libraries] == [0, 1, 2, 3]


def test_imports_are_bound_to_the_given_addresses():
    text = "declare i64 @g()\ndefine i64 @f() {\n  %x = call i64 @g()\n  ret i64 %x\n}\n"
    given = ctypes.CFUNCTYPE(ctypes.c_int64)(lambda: 42)
    address = ctypes.cast(given, ctypes.c_void_p).value
    library = Library(compile_object(text, PORTABLE), ["f"], {"g": address})
    assert call(library) == 42


def test_threads_compile_at_the_same_time(cache):
    found = {}

    def work(i):
        found[i] = load(f"key {i % 3}", i % 3)[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: i % 3 for i in range(9)}


def test_assembly_shows_the_chosen_instruction_set():
    text = (
        "define void @f(ptr %p) {\n  %x = load <16 x float>, ptr %p, align 4\n"
        "  %y = fadd <16 x float> %x, %x\n  store <16 x float> %y, ptr %p, align 4\n"
        "  ret void\n}\n"
    )
    registers = {"avx512": "zmm", "avx2": "ymm", "portable": "xmm"}
    for isa in available_isas():
        if isa in registers:
            assert registers[isa] in disassemble(text, isa_named(isa))


# -- other processes ------------------------------------------------------------------------------
_CHILD = """
import ctypes, os, signal, sys
from asterope.native import ISAS, load_library

{before}
text = "define i64 @f() {{\\n  ret i64 11\\n}}\\n"
library = load_library("shared", ISAS["portable"], ["f"], lambda: text)
print(ctypes.CFUNCTYPE(ctypes.c_int64)(library.symbols["f"])())
"""


def start(cache, before=""):
    environment = {**os.environ, "ASTEROPE_CACHE_DIR": str(cache)}
    code = _CHILD.format(before=textwrap.dedent(before))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_processes_that_compile_at_once_leave_one_whole_file(cache):
    children = [start(cache) for _ in range(3)]
    for child in children:
        out, error = child.communicate(timeout=60)
        assert (child.returncode, out) == (0, "11\n"), error
    (path,) = files_in(cache)
    assert path.suffix == ".o"
    child = start(cache, "load_library = lambda *a, _f=load_library: _f(*a[:3], lambda: 1 / 0)")
    assert child.communicate(timeout=60)[0] == "11\n", "the file is not used"


def test_a_killed_writer_leaves_no_file_of_that_name(cache):
    child = start(cache, "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)")
    assert child.communicate(timeout=60)[0] == ""
    assert child.returncode == -9
    assert [p for p in files_in(cache) if p.suffix == ".o"] == []
    assert load("shared", 12) == (12, True)
