"""The test suites that can be run: where their tests are, what they need, what is left out and why.

Nothing of a suite is in this project. A suite is run from a checkout that the user has.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

__all__ = [
    "COLLECTIONS",
    "TRITON",
    "TUTORIAL_SCRIPTS",
    "TUTORIAL_SHIMS",
    "TUTORIAL_SIZES",
    "TUTORIAL_TESTS",
    "Suite",
]


_CASES = Path(__file__).parent / "cases"


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """A set of test files and how pytest runs them.

    `root` is the folder of the checkout that pytest runs in, `tests` are globs from there, and
    `python_path` folders from there. `shims` are names in `shims.py`. `not_run` maps the beginning
    of a test's name, or a glob of files, to the reason it is left out. `needs` are Python packages
    beside pytest. `is_ours` if the tests are those of `cases/`, on kernels of the checkout: where
    those of the collection need a GPU's library to start.
    """

    name: str
    title: str
    root: str
    tests: tuple[str, ...]
    shims: tuple[str, ...] = ("small_packages", "cuda_attributes", "cuda_is_cpu")
    python_path: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    not_run: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    is_ours: bool = False

    def folder(self, checkout: Path) -> Path:
        """Return the folder that pytest runs in."""
        return _CASES if self.is_ours else checkout / self.root

    def files(self, checkout: Path) -> list[str]:
        """List the test files of a checkout, but for those left out."""
        root = self.folder(checkout)
        found = {p.relative_to(root).as_posix() for glob in self.tests for p in root.glob(glob)}
        return sorted(f for f in found if not any(fnmatch(f, left) for left in self.not_run))


_SHIMS = ("small_packages", "cuda_attributes", "cuda_is_cpu", "cpu_is_a_device")
_GPU_LAYOUT = "about layouts and instructions of GPUs"
_NO_KERNELS = "patches models, or is about Python around the kernels"
_HUGE = "multiplies 8,192 x 8,192 x 8,192: minutes on two cores, and as many for its reference"
_GPU_TEXT = "reads GPU assembly or line tables of it"

TRITON = Suite(
    name="triton",
    title="Triton's tests",
    root="python/test",
    tests=(
        "unit/language/test_*.py", "unit/runtime/test_*.py", "unit/test_*.py",
        "unit/tools/test_irsource.py",
    ),
    shims=_SHIMS,
    options=("--device", "cpu"),
    not_run={
        "unit/language/test_warp_specialization.py": _GPU_LAYOUT,
        "unit/language/test_compile_only.py": "compiles for one named GPU",
        "unit/language/test_line_info.py": _GPU_TEXT,
        "unit/language/test_module.py": "holds a kernel for other files, no tests",
        "unit/runtime/test_blaslt.py": "about cuBLASLt and hipBLASLt",
        "unit/test_debuginfo.py": _GPU_TEXT,
        "unit/test_filecheck.py": "about Triton's own FileCheck",
        "unit/test_link.py": "links LLVM bitcode of CUDA",
        **{
            f"unit/language/test_tensor_descriptor.py::test_mxfp8_mxfp4_matmul_tma[{at}-8192": _HUGE
            for at in ("1-128-128-128", "1-128-128-256", "1-128-256-128", "1-128-256-256",
                       "3-128-128-128", "3-128-128-256", "3-128-256-128", "3-128-256-256")
        },
    },
)  # fmt: skip

# The scripts are run as they are; the one that is a test file, at its smallest sizes.
TUTORIAL_SCRIPTS = ("01-*", "02-*", "03-*", "04-*", "05-*", "07-*", "08-*")
TUTORIAL_TESTS = Suite(
    name="tutorials",
    title="The tutorials",
    root="python/tutorials",
    tests=("06-*.py",),
    shims=_SHIMS,
    options=("-k", "128-2-1 or 128-2-4"),
)

# How many of a benchmark's sizes are run; torch takes minutes for each of tutorial 08's in fp16.
TUTORIAL_SIZES = {"08-grouped-gemm.py": 1}
# 07 names a library of CUDA, and asserts that its tensors are there; its function is libdevice's.
TUTORIAL_SHIMS = {"07-extern-functions.py": ("target_is_cuda", "tensors_are_cuda")}

COLLECTIONS = {
    suite.name: suite
    for suite in (
        Suite(
            name="triton_kernels",
            title="triton_kernels (gpt-oss), in Triton's repository",
            root="python/triton_kernels",
            tests=("tests/test_*.py", "tests/*_details/test_*.py"),
            shims=(*_SHIMS, "cuda_is_new", "target_is_cuda", "histc_of_integers"),
            python_path=(".",),
            not_run={
                "tests/test_distributed.py": "needs several GPUs",
                "tests/test_roofline.py": "draws rooflines of GPUs, has no kernels",
            },
        ),
        Suite(
            name="liger",
            title="Liger-Kernel",
            root=".",
            tests=("test/transformers/test_*.py", "test/chunked_loss/test_*.py"),
            shims=(*_SHIMS, "cuda_is_available", "tensors_are_cuda"),
            python_path=("src",),
            not_run={
                "test/chunked_loss/*": "has no Triton kernels, only what torch compiles",
                "test/transformers/*cute*": "about CuTe kernels",
                "test/transformers/*cutile*": "about cuTile kernels",
                "test/transformers/test_auto_model.py": _NO_KERNELS,
                "test/transformers/test_flex_attention.py": "about torch's own attention",
                "test/transformers/test_monkey_patch.py": _NO_KERNELS,
                "test/transformers/test_trainer_integration.py": _NO_KERNELS,
                "test/transformers/test_transformers.py": _NO_KERNELS,
                "test/transformers/test_utils.py": _NO_KERNELS,
            },
            needs=("transformers 4.57",),
        ),
        Suite(
            name="fla",
            title="flash-linear-attention",
            root=".",
            tests=("tests/ops/test_*.py",),
            shims=(*_SHIMS, "target_is_cpu", "tensors_are_cuda"),
            python_path=(".",),
            needs=("einops", "transformers"),
        ),
        Suite(
            name="flaggems",
            title="FlagGems",
            root=".",
            tests=("tests/test_*.py",),
            shims=(*_SHIMS, "flaggems_on_cpu"),
            python_path=("src", "tests"),
            options=("--ref", "cpu", "--quick"),
            env={"GEMS_VENDOR": "nvidia"},
            needs=("sqlalchemy",),
        ),
        # Nothing of vLLM's tests is used: they start by loading its CUDA library.
        Suite(
            name="vllm",
            title="vLLM's unified attention and fused MoE, against float64 references of ours",
            root=".",
            tests=("test_unified_attention.py", "test_fused_moe.py"),
            python_path=(".",),
            options=("-c", os.devnull),
            needs=("einops", "cloudpickle", "cbor2", "msgspec", "pybase64", "pyzmq"),
            is_ours=True,
        ),
    )
}
