"""Options that several commands share, and what they add up to."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from asterope import chips
from asterope.api import Pricing
from asterope.cost import Assumptions
from asterope.cost import Basis as PriceBasis
from asterope.errors import ConfigError

if TYPE_CHECKING:
    from asterope.api import EstimateOptions
    from asterope.twin import Phase

__all__ = [
    "OPTION_OF",
    "Activations",
    "Algorithm",
    "AsJson",
    "Basis",
    "Batch",
    "Budget",
    "Calibrate",
    "CalibrationWindows",
    "Chip",
    "Compare",
    "Context",
    "CostOptions",
    "Dtype",
    "ElectricityExtra",
    "ExpertLoads",
    "ExpertParallel",
    "FewShots",
    "Fidelity",
    "Format",
    "Formats",
    "IdlePower",
    "KvCache",
    "MaxTextTokens",
    "MixedFormats",
    "OverheadPower",
    "Overlap",
    "PrefillBatch",
    "Price",
    "Pue",
    "Recipe",
    "Rule",
    "TaskLimit",
    "Tasks",
    "TensorParallel",
    "TextFile",
    "UsdPerKwh",
    "Utilisation",
    "command_line",
    "estimate_options",
    "listed",
]

FIDELITIES = ("tile", "operator", "roofline")
_CHIP, _COST, _SCORE = "Chip and workload", "Cost", "Accuracy"
_CALIBRATE, _MIXED = "Calibration", "Mixed precision"
_FIELDS = (
    "activations", "basis", "batch", "budget", "context", "cross_entropy", "dtype", "fidelity",
    "format", "formats",
    "idle_power_fraction", "max_new_tokens", "max_text_tokens", "overhead_power_ratio", "page_size",
    "phase",
    "prefill_batch", "pue", "relative_rate", "rule", "seed", "steps", "temperature",
    "top_k", "top_p", "usd_per_kwh", "utilisation", "windows_per_step",
)  # fmt: skip
OPTION_OF = {name: f"--{name.replace('_', '-')}" for name in _FIELDS} | {
    "energy_j": "--power-w",
    "max_tokens": "--max-text-tokens",
    "tile": "--fidelity tile",
    "tokens": "--tokens-per-s",
    "usd_per_chip_hour": "--price",
}
"""The option that sets a field which an error names."""

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="NAME",
        help="Weight format: fp8, fp8_tensor, fp8_block, mxfp8, mxfp6, mxfp4, mxfp4_e1m2, nvfp4,"
        " or bf16 for unquantized; `mxfp4/fp8` says the activations too, `+h` rotates in blocks,"
        " `+r32` adds a branch of rank 32."
        " Default: mxfp4, or what the checkpoint is quantized to.",
    ),
]  # fmt: skip
Activations = Annotated[
    str, typer.Option(metavar="NAME", help="Activations of linear layers: bf16, fp8, or same.")
]
Rule = Annotated[
    str | None,
    typer.Option(metavar="RULE", help="Scale rule: floor, even, rceil, amax, two_level."),
]
Algorithm = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", rich_help_panel=_CALIBRATE,
        help="rtn: round to nearest. mse: the block scales that lose least on the text. gptq:"
        " these, and columns make up for each other's errors. awq, awq_gptq: the same after"
        " inputs are equalized. svdquant: awq_gptq beside a low-rank branch in bf16. tuned:"
        " awq_gptq, then each layer trained to give what the original gives; minutes a layer."
        " Default: gptq with --calibrate, else rtn.",
    ),
]  # fmt: skip
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", rich_help_panel=_CALIBRATE,
        help="Format, algorithm and KV cache in one: fp8, mxfp8, or mxfp4 or nvfp4 with -weights,"
        " -best or -fast.",
    ),
]  # fmt: skip
Calibrate = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", rich_help_panel=_CALIBRATE,
        help="Text to look at: plain, or the field `text` of JSON lines or Parquet. Default:"
        " sources of Python's standard library that the shipped model is not scored on.",
    ),
]  # fmt: skip
CalibrationWindows = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, rich_help_panel=_CALIBRATE,
        help="Windows of 512 tokens to look at.",
    ),
]  # fmt: skip
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        help="Type of unquantized weights and activations: bfloat16, float16, float32."
        " Default: the checkpoint's.",
    ),
]
TextFile = Annotated[
    Path | None,
    typer.Option(
        "--text", metavar="FILE", rich_help_panel=_SCORE,
        help="Text to score. Default: held-out sources of Python's standard library.",
    ),
]  # fmt: skip

Tasks = Annotated[
    str | None,
    typer.Option(
        metavar="FILES", rich_help_panel=_SCORE,
        help="Tasks of lm-evaluation-harness to score as well, separated by commas: YAML files, or"
        " names where the data are cached. Nothing is downloaded. Needs asterope\\[tasks].",
    ),
]  # fmt: skip
TaskLimit = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, rich_help_panel=_SCORE, help="Samples of each task. Default: all."
    ),
]
FewShots = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=0, rich_help_panel=_SCORE,
        help="Solved examples before each sample. Default: as the task says.",
    ),
]  # fmt: skip
MaxTextTokens = Annotated[
    int, typer.Option(metavar="N", rich_help_panel=_SCORE, help="Tokens of the text to score.")
]
Formats = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES", rich_help_panel=_SCORE,
        help="Formats to compare, separated by commas; '' for none. Default: all on models up to"
        " 300 M parameters.",
    ),
]  # fmt: skip
MixedFormats = Annotated[
    str | None,
    typer.Option(
        "--formats", metavar="NAMES", rich_help_panel=_MIXED,
        help="Formats that places may have, separated by commas. Default: mxfp4,nvfp4,fp8.",
    ),
]  # fmt: skip
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="LIMIT", rich_help_panel=_MIXED,
        help="Search a mix of formats: the fastest within ppl<1.02x or kl<0.01, or the one that"
        " loses least within bytes<0.4x, time<0.6x or tokens/s>1000.",
    ),
]  # fmt: skip

Chip = Annotated[
    str,
    typer.Option(
        metavar="CHIP", rich_help_panel=_CHIP,
        help="Name (`asterope chips`), name:profile (maia200:headline), or a what-if TOML file.",
    ),
]  # fmt: skip
Compare = Annotated[
    str,
    typer.Option(
        metavar="CHIPS", rich_help_panel=_CHIP,
        help="Chips to compare with, separated by commas; '' for none.",
    ),
]  # fmt: skip
Batch = Annotated[
    int, typer.Option(metavar="N", rich_help_panel=_CHIP, help="Sequences of a decode step.")
]
PrefillBatch = Annotated[
    int, typer.Option(metavar="N", rich_help_panel=_CHIP, help="Prompts of a prefill.")
]
Context = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=_CHIP,
        help="Tokens of each sequence. Default: the model's own limit, 4096 at most.",
    ),
]
TensorParallel = Annotated[
    int,
    typer.Option(
        metavar="N", rich_help_panel=_CHIP,
        help="Chips that share each layer and exchange their sums: 2 or 4 of a tray, or whole"
        " trays.",
    ),
]  # fmt: skip
ExpertParallel = Annotated[
    int,
    typer.Option(
        metavar="N", rich_help_panel=_CHIP,
        help="Chips that share the experts of each layer, in groups of --tensor-parallel that have "
        "sequences of the batch for themselves.",
    ),
]  # fmt: skip
ExpertLoads = Annotated[
    str,
    typer.Option(
        metavar="NAME", rich_help_panel=_CHIP,
        help="How tokens are taken to be spread over experts: `random`, as by an untrained router,"
        " or `even`.",
    ),
]  # fmt: skip
Overlap = Annotated[
    str,
    typer.Option(
        metavar="NAME", rich_help_panel=_CHIP,
        help="What runs while chips exchange: `none`, or the kernels of the other of two `halves` "
        "of the step.",
    ),
]  # fmt: skip
KvCache = Annotated[
    str,
    typer.Option(
        "--kv", metavar="NAME", rich_help_panel=_CHIP,
        help="Format of the KV cache: `auto` is that of the activations; fp8, nvfp4 or mxfp4.",
    ),
]  # fmt: skip
Fidelity = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", rich_help_panel=_CHIP,
        help="`tile` plays every macro-instruction, `operator` is calibrated on measured GPUs,"
        " `roofline` is the least time that peaks allow. Default: all that the chip is described"
        " for.",
    ),
]  # fmt: skip

Price = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[CHIP=]USD", rich_help_panel=_COST,
        help="Price of a chip-hour; `h200=2.10` for another chip than --chip. Repeatable.",
    ),
]  # fmt: skip
Basis = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", rich_help_panel=_COST,
        help="Price basis: tco_hyperscaler, tco_neocloud, rental_3yr, on_demand.",
    ),
]  # fmt: skip
Pue = Annotated[
    float | None,
    typer.Option(metavar="RATIO", rich_help_panel=_COST, help="Facility power over IT power."),
]
UsdPerKwh = Annotated[
    float | None, typer.Option(metavar="USD", rich_help_panel=_COST, help="Price of electricity.")
]
Utilisation = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", rich_help_panel=_COST, help="Share of the paid hours that serve."
    ),
]
IdlePower = Annotated[
    float | None,
    typer.Option(
        "--idle-power-fraction", metavar="SHARE", rich_help_panel=_COST,
        help="Power of an idle hour over that of a serving one.",
    ),
]  # fmt: skip
OverheadPower = Annotated[
    float | None,
    typer.Option(
        "--overhead-power-ratio", metavar="RATIO", rich_help_panel=_COST,
        help="Power of chip, host and network over that of the chip.",
    ),
]  # fmt: skip
ElectricityExtra = Annotated[
    bool,
    typer.Option(
        "--electricity-extra", rich_help_panel=_COST,
        help="The prices given with --price are without electricity: add it.",
    ),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class CostOptions:
    """The options of the panel Cost as they were given."""

    price: list[str] | None = None
    basis: str | None = None
    pue: float | None = None
    usd_per_kwh: float | None = None
    utilisation: float | None = None
    idle_power_fraction: float | None = None
    overhead_power_ratio: float | None = None
    electricity_extra: bool = False

    def pricing(self, chip: str) -> Pricing:
        """Return what they say; a price without a name is that of `chip`.

        Raises: ConfigError naming what is outside its limits; ChipError for a chip that does not
        exist.
        """
        names = ("pue", "usd_per_kwh", "utilisation", "idle_power_fraction", "overhead_power_ratio")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        prices = dict(_price(text, chip) for text in self.price or ())
        if self.electricity_extra and not prices:
            raise ConfigError(
                "needs --price: the packaged prices include electricity",
                where="--electricity-extra",
            )
        basis = None if self.basis is None else cast(PriceBasis, self.basis)
        return Pricing(
            assumptions=Assumptions(basis=basis, **given),
            prices=prices,
            electricity_extra=self.electricity_extra,
        )


def _price(text: str, chip: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        return chips.get(name or chip).name, float(number)
    except ValueError:
        raise ConfigError(
            f"{text!r} is not a price", where="--price", hint="write 1.95 or h200=2.10"
        ) from None


def estimate_options(  # noqa: PLR0913 - it passes on what commands take
    cost: CostOptions, *, chip: str, compare: str, batch: int, prefill_batch: int,
    context: int | None, fidelity: str | None, phase: str = "both", tensor_parallel: int = 1,
    expert_parallel: int = 1, expert_loads: str = "random", overlap: str = "none",
) -> EstimateOptions:  # fmt: skip
    """Return what to time and how to price it.

    Raises: ConfigError or ChipError naming the option that is wrong.
    """
    from asterope.api import EstimateOptions
    from asterope.llm import EXPERT_LOADS
    from asterope.twin import OVERLAPS

    phases: dict[str, tuple[Phase, ...]] = {
        "both": ("decode", "prefill"),
        "decode": ("decode",),
        "prefill": ("prefill",),
    }
    return EstimateOptions(
        chip=chip, compare=listed(compare), batch=batch, prefill_batch=prefill_batch,
        context=context,
        fidelity=None if fidelity is None else one_of(fidelity, FIDELITIES, "--fidelity"),
        phases=phases[one_of(phase, tuple(phases), "--phase")],
        tensor_parallel=tensor_parallel,
        expert_parallel=expert_parallel,
        expert_loads=one_of(expert_loads, EXPERT_LOADS, "--expert-loads"),
        overlap=one_of(overlap, OVERLAPS, "--overlap"),
        pricing=cost.pricing(chip),
    )  # fmt: skip


def one_of(text: str, names: tuple[str, ...], where: str) -> Any:
    """Return the text if it is one of the names.

    Raises: ConfigError with the names.
    """
    if text in names:
        return text
    raise ConfigError(f"there is no {text!r}", where=where, hint=f"use {' or '.join(names)}")


def listed(text: str | None) -> tuple[str, ...]:
    """Split names at commas."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def command_line() -> str:
    """Return the command that is running, to be pasted into a shell."""
    return shlex.join(["asterope", *sys.argv[1:]])
