"""Block quantization against torchao and against memory.

Run it as `python -m benchmarks.speed.bench_formats`. Each round quantizes the same tensor with
Asterope and with torchao 0.18 (eager, or through `torch.compile` with --compiled), same scale rule,
same number of threads, results in new arrays, and streams as many bytes through memory as the
format needs at least. The codes and scales are compared byte for byte before anything is timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import typer
from benchmarks.harness import Report, Section, Spread, publish, rate, speedup, time_rounds
from benchmarks.memory_floor import Stream
from rich.console import Console
from rich.progress import track

from asterope.formats import QuantizedTensor, quantize
from asterope.native import num_cores

DTYPES = {"fp32": np.dtype(np.float32), "bf16": np.dtype(ml_dtypes.bfloat16)}
COMMAND = "python -m benchmarks.speed.bench_formats --write"
CAVEATS = """\
- GB/s are bytes of the input over time, and depend on what else the machine does. The ratios are of
  times in the same round, and depend on it less: read their median and spread.
- torchao's CPU path is a chain of tensor operations; its own targets are GPUs.
- The floor reads the input (twice for nvfp4, whose global scale needs the whole tensor first) and
  writes as many bytes as the codes and scales have, with the same threads.
- mxfp6 codes stay one a byte on both sides, because torchao leaves them so.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One format with the scale rule to use, and whether its codes are packed."""

    format: str
    rule: str
    packed: bool = True
    num_reads: int = 1


CASES = (
    Case(format="mxfp8", rule="rceil"),
    Case(format="mxfp6", rule="even", packed=False),
    Case(format="mxfp4", rule="even"),
    Case(format="nvfp4", rule="two_level", num_reads=2),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What was measured for one case and input type."""

    case: Case
    dtype: str
    ours_gb_per_s: Spread
    torchao_gb_per_s: Spread
    floor_gb_per_s: Spread
    times_torchao: Spread
    share_of_floor: Spread


def torchao_quantizer(case: Case, *, compiled: bool) -> Callable[[Any], Any]:
    """Return a function from a torch tensor to torchao's (scales, codes)."""
    import torch
    from torchao.prototype.mx_formats import constants, mx_tensor, nvfp4_tensor
    from torchao.prototype.mx_formats.config import ScaleCalculationMode

    elements = {
        "mxfp8": torch.float8_e4m3fn,
        "mxfp6": constants.DTYPE_FP6_E2M3,
        "mxfp4": torch.float4_e2m1fn_x2,
    }

    def nvfp4(x: Any) -> Any:
        scale = nvfp4_tensor.per_tensor_amax_to_scale(x.abs().max())
        return nvfp4_tensor.nvfp4_quantize(x, 16, scale)

    def mx(x: Any) -> Any:
        mode = ScaleCalculationMode[case.rule.upper()]
        return mx_tensor.to_mx(x, elements[case.format], 32, mode)

    chosen = nvfp4 if case.format == "nvfp4" else mx
    return torch.compile(chosen) if compiled else chosen


def check_same(ours: QuantizedTensor, theirs: Any) -> None:
    """Compare all bytes with torchao's result."""
    import torch

    scales, codes = (part.view(torch.uint8).numpy() for part in theirs)
    np.testing.assert_array_equal(ours.scales, scales.reshape(ours.scales.shape))
    np.testing.assert_array_equal(ours.codes, codes)


def measure(
    case: Case, dtype: str, values: npt.NDArray[np.float32], *, rounds: int, compiled: bool
) -> Result:
    """Time one case and input type."""
    import torch

    x = values.astype(DTYPES[dtype])
    tensor = torch.from_numpy(values).to(torch.float32 if dtype == "fp32" else torch.bfloat16)
    ours = partial(quantize, x, case.format, rule=case.rule, packed=case.packed)
    theirs = partial(torchao_quantizer(case, compiled=compiled), tensor)
    quantized = ours()
    check_same(quantized, theirs())
    floor = Stream(
        source=x.view(np.uint8).reshape(-1),
        num_bytes=quantized.codes.nbytes + quantized.scales.nbytes,
        num_reads=case.num_reads,
    )
    times = time_rounds({"ours": ours, "torchao": theirs, "floor": floor}, rounds=rounds)
    gb = x.nbytes / 1e9
    return Result(
        case=case,
        dtype=dtype,
        ours_gb_per_s=rate(gb, times["ours"]),
        torchao_gb_per_s=rate(gb, times["torchao"]),
        floor_gb_per_s=rate(gb, times["floor"]),
        times_torchao=speedup(times["ours"], times["torchao"]),
        share_of_floor=speedup(times["ours"], times["floor"]),
    )


HEADER = (
    "format", "input", "rule", "ours GB/s", "torchao GB/s", "floor GB/s", "ours / torchao",
    "ours / floor",
)  # fmt: skip


def cells(result: Result) -> list[str]:
    """Return a row of the table; a spread is written as median (smallest-largest)."""
    case = result.case
    name = f"{case.format}, {'packed' if case.packed else 'one code a byte'}"
    spreads = (
        result.ours_gb_per_s,
        result.torchao_gb_per_s,
        result.floor_gb_per_s,
        result.times_torchao,
        result.share_of_floor,
    )
    return [name, result.dtype, case.rule, *map(str, spreads)]


def report(results: list[Result], shape: tuple[int, int], *, rounds: int, compiled: bool) -> Report:
    """Return what was measured, for people and for machines."""
    how = (
        f"{shape[0]} x {shape[1]} values from a normal distribution, {rounds} rounds, torchao "
        f"{'under torch.compile' if compiled else 'eager'}; median (smallest-largest)"
    )
    return Report(
        theme="formats_compiled" if compiled else "formats",
        title="Block quantization: GB/s against torchao and memory",
        notes=CAVEATS,
        sections=[Section(title=how, header=HEADER, rows=[cells(r) for r in results])],
        data=[dataclasses.asdict(r) for r in results],
        packages=["numpy", "torch", "torchao", "llvmlite"],
        command=f"{COMMAND}{' --compiled' if compiled else ''}",
    )


def main(
    rows: Annotated[int, typer.Option(min=256, help="Rows of the tensor.")] = 2048,
    columns: Annotated[int, typer.Option(min=64, help="Columns, a multiple of 32.")] = 4096,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 9,
    compiled: Annotated[
        bool, typer.Option(help="Time torchao under torch.compile, where it compiles.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/formats_*.md.")] = False,
) -> None:
    """Compare block quantization with torchao and with the floor that memory sets."""
    if columns % 32:
        raise typer.BadParameter(f"{columns} is not a multiple of 32", param_hint="--columns")
    words = Console(stderr=True)
    try:
        with contextlib.redirect_stdout(words.file), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            import torchao  # noqa: F401  fails here, with a hint, if it is missing
    except ImportError as error:
        words.print(f"{error}\nhint: pip install 'asterope\\[dev]'")
        raise typer.Exit(2) from None
    torch.set_num_threads(num_cores())
    values = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    results = []
    for case in track(CASES, "quantizing", console=words):
        for dtype in DTYPES:
            try:
                results.append(measure(case, dtype, values, rounds=rounds, compiled=compiled))
            except torch._dynamo.exc.TorchDynamoException as error:
                words.print(f"{case.format} {dtype}: torch.compile: {str(error).splitlines()[0]}")
    text = report(results, (rows, columns), rounds=rounds, compiled=compiled)
    publish(text, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)
