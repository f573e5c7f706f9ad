"""Compile LLVM IR to machine code, keep it on disk, load it."""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

from asterope.native.cpu import Isa
from asterope.native.files import cache_dir, write_atomically

__all__ = ["Library", "compile_object", "disassemble", "load_library"]

# Changes whenever machine code for the same key could differ.
_CODE_VERSION = f"1-llvmlite{llvmlite.__version__}"
_DIGEST_BYTES = 32
_lock = threading.RLock()


@functools.cache
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@functools.cache
def _target_machine(cpu: str, features: str) -> llvm.TargetMachine:
    _initialise()
    target = llvm.Target.from_default_triple()
    if not cpu:
        cpu = "x86-64" if "x86_64" in llvm.get_default_triple() else "generic"
    return target.create_target_machine(cpu=cpu, features=features, opt=2, jit=True)


@functools.cache
def _jit() -> llvm.LLJIT:
    return llvm.create_lljit_compiler(_target_machine("", ""))


def _optimise(text: str, isa: Isa) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    machine = _target_machine(isa.llvm_cpu, isa.llvm_features)
    module = llvm.parse_assembly(text)
    module.verify()
    # Vectors are written out by hand, several a loop where that pays: vectorisers and the unroller
    # would only cost compile time.
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module, machine


def compile_object(text: str, isa: Isa) -> bytes:
    """Optimise LLVM IR for an instruction set and return an object file."""
    with _lock:
        module, machine = _optimise(text, isa)
        return bytes(machine.emit_object(module))


def disassemble(text: str, isa: Isa) -> str:
    """Return the assembly that `compile_object` would assemble, to look at."""
    with _lock:
        module, machine = _optimise(text, isa)
        return str(machine.emit_assembly(module))


class Library:
    """Loaded machine code: symbol addresses, valid as long as this object lives."""

    def __init__(self, image: bytes, symbols: Sequence[str], imports: Mapping[str, int]) -> None:
        builder = llvm.JITLibraryBuilder().add_object_img(image).add_current_process()
        for name in symbols:
            builder.export_symbol(name)
        for name, address in imports.items():
            builder.import_symbol(name, address)
        with _lock:
            self._tracker = builder.link(_jit(), f"library{id(self)}-{_next_id()}")
        self.symbols = {name: int(self._tracker[name]) for name in symbols}


_count = 0


def _next_id() -> int:
    global _count  # noqa: PLW0603  a process-wide serial number for the JIT's name table
    _count += 1
    return _count


def _read_cached(path: Path) -> bytes | None:
    """Return the object in a cache file, or None if it is missing or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, image = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return image if hashlib.sha256(image).digest() == digest else None


def load_library(
    key: str,
    isa: Isa,
    symbols: Sequence[str],
    write: Callable[[], str],
    imports: Mapping[str, int] | None = None,
) -> Library:
    """Load the machine code for `key`, compiling what `write` returns if it is not on disk.

    `key` must determine the text that `write` produces. The cache holds one file a key, with a
    checksum in front, written to a temporary name and renamed: two processes, a killed writer or
    a full disk leave either a whole file or none, and a damaged file is compiled again.
    """
    full = f"{_CODE_VERSION}|{isa.name}|{isa.llvm_cpu}|{isa.llvm_features}|{key}"
    name = hashlib.sha256(full.encode()).hexdigest()
    path = cache_dir() / "code" / name[:2] / f"{name}.o"
    image = _read_cached(path)
    if image is None:
        image = compile_object(write(), isa)
        _try_to_cache(path, image)
    return Library(image, symbols, imports or {})


def _try_to_cache(path: Path, image: bytes) -> None:
    if os.environ.get("ASTEROPE_NO_CACHE"):
        return
    try:
        write_atomically(path, hashlib.sha256(image).digest() + image)
    except OSError:
        return  # a read-only or full disk costs compile time, nothing else
