"""Triton's view of Asterope as a compiler: options, stages, TTIR passes."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

from triton import knobs
from triton._C.libtriton import ir, passes
from triton.backends.compiler import BaseBackend, GPUTarget, Language

from asterope import __version__
from asterope.errors import ConfigError
from asterope.ir import Kernel, print_kernel
from asterope.native import sources_digest
from asterope.runtime import optimise
from asterope.triton_backend.convert import TF32, TF32_UNASKED, convert_module
from asterope.triton_backend.ttir import generic_text, parse_module

__all__ = ["TARGET", "WARP_SIZE", "MaiaBackend", "MaiaOptions", "OptionError"]

# Programs have no warps here; where kernels or Triton ask for a warp's size it is a GPU's.
WARP_SIZE = 32
TARGET = GPUTarget("maia", "maia200", WARP_SIZE)


class OptionError(ConfigError, AssertionError):
    """A launch option outside its limits; Triton's own back ends raise the second base."""


@dataclass(frozen=True)
class MaiaOptions:
    """The launch options a kernel may pass.

    Asterope reads `num_stages` (buffers of a software pipeline), `debug` and `sanitize_overflow`
    (assertions), and the dot precisions. On a GPU each thread prints what it holds, so that a
    scalar is printed once a thread; it is here if the launch gives `num_warps`, from which
    `print_threads` follows. The rest exist because Triton or portable kernels pass or read them;
    they change nothing here.
    """

    num_stages: int = 2
    debug: bool = False
    default_dot_input_precision: str = "ieee"
    # tf32 rounds the operands; the splits are computed in full fp32, which is more precise.
    allowed_dot_input_precisions: tuple[str, ...] = ("ieee", "tf32", "tf32x3", "bf16x3", "bf16x6")
    supported_fp8_dtypes: tuple[str, ...] = (
        "fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16", "fp8e4b15",
    )  # fmt: skip
    deprecated_fp8_dot_operand_dtypes: tuple[str, ...] = ()
    max_num_imprecise_acc_default: int = 0
    sanitize_overflow: bool = True
    arch: str = "maia200"
    backend_name: str = "maia"
    num_warps: int = 4
    num_ctas: int = 1
    print_threads: int = 1
    warp_size: int = WARP_SIZE
    maxnreg: int | None = None
    enable_fp_fusion: bool = True
    launch_cooperative_grid: bool = False
    launch_pdl: bool = False
    extern_libs: Any = ()
    instrumentation_mode: str = ""
    ir_override: str | None = None
    matrix_instr_nonkdim: int = 0
    waves_per_eu: int = 0
    kpack: int = 1
    grf_mode: str = ""
    fpsan_homomorphic_casts: bool = False

    def __post_init__(self) -> None:
        """Check the limits that every GPU has, so that a kernel tuned here runs there.

        Raises: OptionError naming the option.
        """
        for name in ("num_warps", "num_ctas"):
            value = getattr(self, name)
            if value <= 0 or value & (value - 1):
                raise OptionError(f"{name} is {value}, and must be a power of 2", where=name)
        if self.num_stages < 0:
            raise OptionError(f"num_stages is {self.num_stages}, below 0", where="num_stages")
        # A dictionary is what users give and Triton's own back ends keep as pairs.
        if isinstance(self.extern_libs, dict):
            object.__setattr__(self, "extern_libs", tuple(self.extern_libs.items()))

    def hash(self) -> str:
        """Return a key that differs when compiled code would."""
        text = "_".join(f"{k}-{v}" for k, v in sorted(self.__dict__.items()))
        return hashlib.sha256(text.encode()).hexdigest()


class MaiaBackend(BaseBackend):  # type: ignore[misc]  # Triton ships no types
    """Compiles TTIR to optimised tile IR; machine code follows at the first launch."""

    binary_ext = "tileir"

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        """Whether this back end compiles for a target."""
        return bool(target.backend == TARGET.backend)

    @functools.lru_cache  # noqa: B019  Triton keeps one backend object for the process
    def hash(self) -> str:
        """Return the part of Triton's cache key that stands for this compiler."""
        digest = sources_digest("compiler", "ir", "runtime", "triton_backend")
        return f"asterope-{__version__}-{self.target.arch}-{digest}"

    def parse_options(self, opts: dict[str, Any]) -> MaiaOptions:
        """Pick the options we know; Triton complains about the rest by name."""
        known = MaiaOptions.__dataclass_fields__
        given = {k: opts[k] for k in known if opts.get(k) is not None}
        given.setdefault("print_threads", WARP_SIZE * given.get("num_warps", 0) or 1)
        return MaiaOptions(**given)

    def pack_metadata(self, metadata: Any) -> tuple[int, int, int]:
        """Return what Triton hands to the launcher; the launcher needs none of it."""
        return (metadata.num_warps, metadata.num_ctas, metadata.shared)

    def get_codegen_implementation(self, options: MaiaOptions) -> dict[str, Any]:
        """Say how small a dot may be (as small as it likes), and how to convert fp8e4b15."""
        # Written in Triton's language, which is not there yet when Triton looks for back ends.
        from asterope.triton_backend.fp8e4b15 import convert_fp8e4b15

        return {
            "min_dot_size": lambda lhs, rhs: (1, 1, 1),
            "convert_custom_types": convert_fp8e4b15,
        }

    def get_module_map(self) -> dict[str, Any]:
        """Give kernels libdevice's names, which the converter knows, and our default precision."""
        from triton.language.extra.cuda import libdevice

        from asterope.triton_backend import language  # Triton's own has to be there first

        return {"triton.language.extra.libdevice": libdevice, "triton.language": language}

    def load_dialects(self, ctx: Any) -> None:
        """Need no dialect beyond Triton's."""

    @staticmethod
    def make_ttir(module: Any, metadata: dict[str, Any], options: MaiaOptions) -> Any:
        """Run Triton's own target-independent passes.

        One of them makes a tf32 product of a sum over broadcast factors, whose precision nobody
        has lowered. The module keeps whether its kernel asked for tf32 anywhere.
        """
        if not _asks_for_tf32(module):
            module.set_attr(TF32_UNASKED, ir.builder(module.context).get_unit_attr())
        manager = ir.pass_manager(module.context)
        manager.enable_debug()
        passes.common.add_inliner(manager)
        passes.ttir.add_combine(manager)
        passes.common.add_canonicalizer(manager)
        passes.ttir.add_reorder_broadcast(manager)
        passes.common.add_cse(manager)
        passes.ttir.add_triton_licm(manager)
        passes.common.add_symbol_dce(manager)
        passes.ttir.add_loop_unroll(manager)
        manager.run(module, "make_ttir")
        return module

    @staticmethod
    def make_tile_ir(module: Any, metadata: dict[str, Any], options: MaiaOptions) -> bytes:
        """Convert to tile IR, optimise, and keep the text."""
        kernel = _convert(module, options)
        metadata["name"] = module.get_entry_func_name()
        metadata["shared"] = 1  # tutorials divide by it; TSRAM is accounted for by the simulator
        for kind in ("global", "profile"):
            metadata[f"{kind}_scratch_size"] = 0
            metadata[f"{kind}_scratch_align"] = 1
        return print_kernel(optimise(kernel)).encode()

    def add_stages(
        self, stages: dict[str, Any], options: MaiaOptions, language: Any = Language.TRITON
    ) -> None:
        """List the stages by the name of what they produce."""
        stages["ttir"] = lambda module, metadata: self.make_ttir(module, metadata, options)
        stages[self.binary_ext] = lambda module, metadata: self.make_tile_ir(
            module, metadata, options
        )
        if knobs.runtime.add_stages_inspection_hook is not None:
            knobs.runtime.add_stages_inspection_hook(self, stages, options, language, None)


def _asks_for_tf32(module: Any) -> bool:
    found = []

    def look(op: Any) -> None:
        if op.get_name() == "tt.dot" and op.get_int_attr("inputPrecision") == TF32:
            found.append(op)

    module.walk(look)
    return bool(found)


def _convert(module: Any, options: MaiaOptions) -> Kernel:
    return convert_module(
        parse_module(generic_text(module)),
        {"num_stages": options.num_stages},
        {"print_threads": options.print_threads},
    )
