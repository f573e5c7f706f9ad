"""How fast compiled kernels are: against Triton's interpreter, against torch, against the machine.

Everything is timed in one run, in rounds that take turns, and reported as ratios with their
spread. The interpreter runs in a process of its own (it has to be chosen before Triton is
imported) and is asked for one timing a round. Beside each row stands the physical floor: the
arithmetic at the CPU's measured multiply-add rate, or the bytes at its measured copy rate.

    python benchmarks/speed/bench_kernels.py --help
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

SIZE = 512
SOFTMAX_SHAPE = (1823, 781)
ADD_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One row: a kernel, its operands, its peers, and what it must do at least."""

    name: str
    ours: Callable[[], object]
    peers: dict[str, Callable[[], object]]
    flop: float = 0.0
    bytes: float = 0.0


def _inputs(kind: str, dtype: str):
    import torch

    torch.manual_seed(0)
    if kind == "add":
        return torch.randn(ADD_SIZE), torch.randn(ADD_SIZE), torch.empty(ADD_SIZE)
    if kind == "softmax":
        x = torch.randn(SOFTMAX_SHAPE)
        return x, torch.empty_like(x)
    a, b = (torch.randn(SIZE, SIZE).to(getattr(torch, dtype)) for _ in range(2))
    return a, b, torch.empty(SIZE, SIZE)


def _serve() -> None:
    """Time a kernel under TRITON_INTERPRET=1 for each line of JSON on standard input."""
    import tutorial_kernels

    for line in sys.stdin:
        ask = json.loads(line)
        tensors = _inputs(ask["kind"], ask["dtype"])
        run = getattr(tutorial_kernels, ask["kind"])
        start = time.perf_counter()
        run(*tensors, ask["block"])
        print(json.dumps(time.perf_counter() - start), flush=True)


class Interpreter:
    """The process that runs kernels in Triton's interpreter."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve-interpreter"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "TRITON_INTERPRET": "1"},
        )  # fmt: skip

    def seconds(self, kind: str, dtype: str, block: int) -> float:
        """Return the time of one interpreted launch."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"kind": kind, "dtype": dtype, "block": block}), file=self._process.stdin, flush=True)
        return float(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def against_interpreter(rounds: int) -> list[dict[str, object]]:
    """Time each tutorial kernel compiled and interpreted, taking turns."""
    import tutorial_kernels
    from harness import speedup, spread, time_rounds

    rows = []
    interpreter = Interpreter()
    cases = [("matmul", "float32", 32), ("matmul", "bfloat16", 32), ("softmax", "float32", 1024), ("add", "float32", 1024)]
    try:
        for kind, dtype, block in cases:
            tensors = _inputs(kind, dtype)
            run = getattr(tutorial_kernels, kind)
            interpreter.seconds(kind, dtype, block) if kind != "matmul" else None
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(time_rounds({"ours": lambda: run(*tensors, block)}, rounds=1)["ours"][0])
                theirs.append(interpreter.seconds(kind, dtype, block))
            ratio = speedup(ours, theirs)
            rows.append({
                "kernel": f"{kind} {dtype}, block {block}", "ours_ms": 1e3 * statistics.median(ours),
                "interpreter_ms": 1e3 * statistics.median(theirs), "ratio": str(spread(theirs)) and str(ratio),
            })  # fmt: skip
            print(f"  {rows[-1]['kernel']}: {ratio} times faster", file=sys.stderr)
    finally:
        interpreter.close()
    return rows


def torch_cases() -> list[Case]:
    """Return each kernel beside the torch operation that does the same."""
    import torch
    import tutorial_kernels as tk

    from asterope.formats import quantize
    from asterope.kernels import ScaledOperand, linear, quantize_rows, scaled_linear

    x, y, out = _inputs("add", "float32")
    s, s_out = _inputs("softmax", "float32")
    cases = [
        Case("vector add 2^20", lambda: tk.add(x, y, out, 1024), {"torch": lambda: torch.add(x, y, out=out)}, bytes=12.0 * ADD_SIZE),
        Case("softmax 1823 x 781", lambda: tk.softmax(s, s_out), {"torch": lambda: torch.softmax(s, 1)}, bytes=8.0 * s.numel()),
    ]
    flop = 2.0 * SIZE**3
    for dtype, block in (("float32", 128), ("float32", 32), ("bfloat16", 128), ("float16", 128)):
        a, b, c = _inputs("matmul", dtype)
        cases.append(
            Case(f"matmul 512^3 {dtype}, block {block}", lambda a=a, b=b, c=c, block=block: tk.matmul(a, b, c, block),
                 {"torch": lambda a=a, b=b: a @ b}, flop=flop)
        )  # fmt: skip
    a8 = torch.randn(SIZE, SIZE).to(torch.float8_e4m3fn)
    w8 = torch.randn(SIZE, SIZE).to(torch.float8_e4m3fn)
    one = torch.ones(())
    wide = torch.randn(SIZE, SIZE)
    cases.append(
        Case("linear fp8 x fp8 512^3", lambda: linear(a8, w8, out_dtype=torch.float32),
             {"torch._scaled_mm": lambda: torch._scaled_mm(a8, w8.T, one, one, out_dtype=torch.float32)}, flop=flop)
    )  # fmt: skip
    q = quantize(wide.numpy(), "mxfp4", packed=True)
    weight = ScaledOperand(codes=torch.from_numpy(q.codes), format="e2m1", scales=torch.from_numpy(q.scales))
    rows = quantize_rows(wide, "mxfp4")
    cases.append(
        Case("linear mxfp4 x mxfp4 512^3", lambda: scaled_linear(rows, weight, out_dtype=torch.float32),
             {"torch._scaled_mm (fp8)": lambda: torch._scaled_mm(a8, w8.T, one, one, out_dtype=torch.float32)}, flop=flop)
    )  # fmt: skip
    return cases


def machine_rates() -> tuple[float, float]:
    """Measure the CPU: multiply-adds in flop/s (a large torch fp32 product) and copied bytes/s."""
    import torch
    from harness import time_rounds

    a = torch.randn(1536, 1536)
    big, target = torch.empty(1 << 26, dtype=torch.uint8), torch.empty(1 << 26, dtype=torch.uint8)
    times = time_rounds({"fma": lambda: a @ a, "copy": lambda: target.copy_(big)}, rounds=5)
    return 2 * 1536**3 / min(times["fma"]), 2 * big.numel() / min(times["copy"])


def against_torch(rounds: int) -> list[dict[str, object]]:
    """Time every case beside its peers, taking turns."""
    from harness import speedup, time_rounds

    flop_rate, byte_rate = machine_rates()
    rows = []
    for case in torch_cases():
        times = time_rounds({"ours": case.ours, **case.peers}, rounds=rounds)
        peer = next(iter(case.peers))
        floor_ms = 1e3 * max(case.flop / flop_rate, case.bytes / byte_rate)
        ours_ms = 1e3 * statistics.median(times["ours"])
        rows.append({
            "kernel": case.name, "ours_ms": ours_ms, "peer": peer,
            "peer_ms": 1e3 * statistics.median(times[peer]),
            "ratio": str(speedup(times["ours"], times[peer])), "floor_ms": floor_ms,
            "share_of_floor": floor_ms / ours_ms,
        })  # fmt: skip
        print(f"  {case.name}: {rows[-1]['ratio']} times {peer}", file=sys.stderr)
    return rows


def _report(result: dict[str, list[dict[str, object]]]) -> str:
    from harness import environment, markdown_table

    facts = environment(["triton", "torch", "llvmlite"])
    lines = ["# Compiled kernels", "", ", ".join(f"{k} {v}" for k, v in facts.items()), "",
             "Ratios are how many times faster Asterope is: median (lowest-highest) over rounds that take turns.",
             "The floor is the arithmetic at the rate of a large torch fp32 product on the same threads,",
             "or the bytes at the rate of a 64 MiB copy. Made by `python benchmarks/speed/bench_kernels.py --write`.", ""]  # fmt: skip
    if "interpreter" in result:
        rows = [[str(r["kernel"]), f"{r['ours_ms']:.3g}", f"{r['interpreter_ms']:.4g}", str(r["ratio"])] for r in result["interpreter"]]
        lines += ["## Against TRITON_INTERPRET=1", "", markdown_table(["kernel", "ours, ms", "interpreter, ms", "times faster"], rows), ""]
    if "torch" in result:
        rows = [[str(r["kernel"]), f"{r['ours_ms']:.3g}", str(r["peer"]), f"{r['peer_ms']:.3g}", str(r["ratio"]), f"{r['floor_ms']:.3g}", f"{r['share_of_floor']:.0%}"] for r in result["torch"]]
        lines += ["## Against torch", "", markdown_table(["kernel", "ours, ms", "peer", "peer, ms", "times faster", "floor, ms", "of the floor"], rows), ""]
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each comparison (default 9)")
    parser.add_argument("--interpreter-rounds", type=int, default=3, help="rounds against the interpreter, which is slow (default 3)")
    parser.add_argument("--only", choices=["interpreter", "torch"], help="run one comparison")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/kernels_<cpu>_<yyyymm>.md")
    parser.add_argument("--serve-interpreter", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_interpreter:
        _serve()
        return
    import torch

    from asterope.native import num_cores

    torch.set_num_threads(num_cores())
    result: dict[str, list[dict[str, object]]] = {}
    if options.only != "torch":
        result["interpreter"] = against_interpreter(options.interpreter_rounds)
    if options.only != "interpreter":
        result["torch"] = against_torch(options.rounds)
    text = _report(result)
    print(json.dumps(result) if options.json else text)
    if options.write:
        from harness import write_results

        print(write_results("kernels", text), file=sys.stderr)


if __name__ == "__main__":
    main()
