"""Why tests fail, found by rules over what the failure says.

The first rule whose pattern is found gives the reason; `{0}` is what its first group matched. A
failure that no rule explains is listed as that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["RULES", "Rule", "reason_of"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason, and the pattern in a failure's text that tells it."""

    reason: str
    pattern: str

    def match(self, text: str) -> str:
        """Return the reason, filled in, or "" if it does not apply."""
        found = re.search(self.pattern, text, re.MULTILINE)
        # Shapes would make a reason of its own of each case.
        return re.sub(r"\[[\d,]+\]", "", self.reason.format(*found.groups())) if found else ""


RULES = (
    Rule("takes longer than {0} s", r"took longer than (\d+) s"),
    Rule("the process dies: {0}", r"^the process died: (.*)"),
    Rule("asserts on the text of a GPU's stage", r"asm\[['\"](?:ttgir|llir|ptx|amdgcn|cubin)"),
    Rule("asserts on the text of a GPU's stage", r"KeyError: .*'(?:ttgir|llir|ptx|amdgcn|cubin)'"),
    Rule(
        "compiles a GPU's stage ({0}) from text", r"ValueError: '(ttgir|llir|ptx)' is not in list"
    ),
    Rule("wants passes of a GPU's pipeline", r"repro_prefix|make_ttgir|make_llir"),
    Rule("wants remarks of a GPU's compiler", r"performance warning|remark"),
    Rule("asks for a CUDA device", r"Torch not compiled with CUDA|No CUDA GPUs|Found no NVIDIA"),
    Rule("asks for a CUDA device", r"Cannot access accelerator device when none is available"),
    Rule("asks for a CUDA device", r"Tried to instantiate dummy base class|assert .*\.is_cuda"),
    Rule("asks for the library of CUDA or HIP", r"RuntimeError: unknown backend"),
    Rule(
        "compares with torch's fp16 gradients of layer norm on a CPU, which are further from"
        " float64 than ours",
        r"AssertionError[\s\S]*05-layer-norm",
    ),
    Rule(
        "an earlier test's TRITON_DEBUG=1 is still set: it asks for a process of its own",
        r"DeviceAssertError: (?:\S*/)?test_debug\.py",
    ),
    Rule(
        "gammas before swiglu, which the library does not support and the test skips on CUDA",
        r"^tests/test_matmul\.py::test_op\[\w+-\w+-True-.*-swiglu_opts\d+\]",
    ),
    Rule("wants memory of the CPU refused, which is the device here", r"test_pointer_arguments"),
    Rule("asks for tensors on CUDA", r"requires CUDA tensors|CPU only\. There seems a mistake"),
    Rule(
        "its reference multiplies numbers of two types, which torch refuses on a CPU",
        r"RuntimeError: \w+ input tensors must have the same dtype, but got",
    ),
    Rule("inline assembly of a GPU", r"inline assembly"),
    Rule("takes all but CUDA and HIP to know no fp8 but float8e5", r"test_fp8_support"),
    Rule("needs the Python package {0}", r"ModuleNotFoundError: No module named '([\w.]+)'"),
    Rule("{0} is not supported yet", r"UnsupportedError:.*?((?:tt|arith|math|scf|cf|ub)\.\w+)"),
    Rule("not supported: {0}", r"UnsupportedError: (?:\S+:\d+:\d+: )?(.{1,80})"),
)


def reason_of(test: str, text: str) -> str:
    """Return one line that says why a test failed, from its name and what it said."""
    for rule in RULES:
        if reason := rule.match(f"{text}\n{test}"):
            return reason
    first = next((line for line in text.splitlines() if line.strip()), "no message")
    said = re.sub(r"/\S*/", "", first.strip())  # no paths of the machine it ran on
    return f"unexplained: {said[:100]}"
