"""Compile Triton kernels to TTIR and tile IR with no driver and no device."""

from __future__ import annotations

from triton._C.libtriton import ir
from triton.compiler import ASTSource

import asterope.triton_backend  # noqa: F401  Triton has to find its back ends first
from asterope.triton_backend.compiler import TARGET, MaiaBackend, MaiaOptions
from asterope.triton_backend.convert import convert_module
from asterope.triton_backend.ttir import generic_text, parse_module

__all__ = ["tile_ir", "ttir", "ttir_text"]


def ttir(fn, signature, constants=None, divisible=()):
    """Return Triton's module after its own passes.

    `signature` is one word a parameter: `*fp32 i32 fp32`, in order, constants left out.
    """
    constants = constants or {}
    types = iter(signature.split())
    named = {n: "constexpr" if n in constants else next(types) for n in fn.arg_names}
    attributes = {(fn.arg_names.index(n),): [["tt.divisibility", 16]] for n in divisible}
    source = ASTSource(fn, named, constants, attributes)
    context = ir.context()
    ir.load_dialects(context)
    backend, options = MaiaBackend(TARGET), MaiaOptions()
    codegen = backend.get_codegen_implementation(options)
    module = source.make_ir(TARGET, options, codegen, backend.get_module_map(), context)
    return MaiaBackend.make_ttir(module, {}, options)


def ttir_text(fn, signature, constants=None, divisible=()):
    """Return the generic text of a kernel's module."""
    return generic_text(ttir(fn, signature, constants, divisible))


def tile_ir(fn, signature, constants=None, divisible=()):
    """Return a kernel as verified tile IR."""
    return convert_module(parse_module(ttir_text(fn, signature, constants, divisible)))
