"""The test suites that can be run: where their tests are, what they need, what is left out and why.

Nothing of a suite is in this project. A suite is run from a checkout that the user has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["COLLECTIONS", "TRITON", "TUTORIAL_SCRIPTS", "TUTORIAL_TESTS", "Suite"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """A set of test files and how pytest runs them.

    `root` is the folder of the checkout that pytest runs in, `tests` are globs from there, and
    `python_path` folders from there. `shims` are names in `shims.py`. `not_run` maps the beginning
    of a test's name, or a file, to the reason it is left out.
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

    def files(self, checkout: Path) -> list[str]:
        """List the test files of a checkout, but for those left out."""
        root = checkout / self.root
        found = {p.relative_to(root).as_posix() for glob in self.tests for p in root.glob(glob)}
        return sorted(found - self.not_run.keys())


_SHIMS = ("small_packages", "cuda_attributes", "cuda_is_cpu", "cpu_is_a_device")
_GPU_LAYOUT = "about layouts and instructions of GPUs"
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

COLLECTIONS = {
    suite.name: suite
    for suite in (
        Suite(
            name="triton_kernels",
            title="triton_kernels (gpt-oss), in Triton's repository",
            root="python/triton_kernels",
            tests=("tests/test_*.py", "tests/*_details/test_*.py"),
            python_path=(".",),
            not_run={"tests/test_distributed.py": "needs several GPUs"},
        ),
        Suite(
            name="liger",
            title="Liger-Kernel",
            root=".",
            tests=("test/transformers/test_*.py", "test/chunked_loss/test_*.py"),
            python_path=("src",),
        ),
        Suite(
            name="fla",
            title="flash-linear-attention",
            root=".",
            tests=("tests/ops/test_*.py",),
            python_path=(".",),
        ),
        Suite(
            name="flaggems",
            title="FlagGems",
            root=".",
            tests=("tests/test_*.py",),
            python_path=("src", "tests"),
            options=("--ref", "cpu", "--mode", "quick"),
        ),
        Suite(
            name="vllm",
            title="vLLM's Triton kernels",
            root=".",
            tests=(
                "tests/kernels/attention/test_triton_unified_attention.py",
                "tests/kernels/moe/test_moe.py",
            ),
        ),
    )
}
