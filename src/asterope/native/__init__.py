"""Native code on this CPU: write LLVM IR, compile, cache, load, run on all cores."""

from __future__ import annotations

from asterope.native.build import Function, Module, Val
from asterope.native.cpu import ISAS, Isa, available_isas, best_isa, isa_named, num_cores
from asterope.native.crew import run_shared, scratch_area
from asterope.native.directed import apply_directed
from asterope.native.files import cache_dir, sources_digest, write_atomically
from asterope.native.freed import freed_at_once, release_freed
from asterope.native.jit import Library, compile_object, disassemble, load_library
from asterope.native.maths import BINARY_FUNCTIONS, FUNCTIONS, apply_function
from asterope.native.pool import Counter, run_on_all_cores
from asterope.native.settings import setting
from asterope.native.types import BITS, type_text

__all__ = [
    "BINARY_FUNCTIONS",
    "BITS",
    "FUNCTIONS",
    "ISAS",
    "Counter",
    "Function",
    "Isa",
    "Library",
    "Module",
    "Val",
    "apply_directed",
    "apply_function",
    "available_isas",
    "best_isa",
    "cache_dir",
    "compile_object",
    "disassemble",
    "freed_at_once",
    "isa_named",
    "load_library",
    "num_cores",
    "release_freed",
    "run_on_all_cores",
    "run_shared",
    "scratch_area",
    "setting",
    "sources_digest",
    "type_text",
    "write_atomically",
]
