"""Write the pages of docs/reference that follow from the code's own tables.

Run it as `python tools/generate_reference.py`; with `--check` it writes nothing and fails if a page
is out of date. A test calls it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import torch
import triton
import triton.language as tl
import typer
import typer.main
from rich.console import Console

from asterope import chips
from asterope.chips import Chip
from asterope.cli import app
from asterope.formats import BLOCKS, DOT_RULES, ELEMENTS, BlockFormat, ElementFormat, ScaleRule
from asterope.ir import ELEMENT_BITS, OPS, Engine
from asterope.llm import count_parameters, published_config, published_model, published_names
from asterope.runtime import Launch, listen, stop_listening
from asterope.triton_backend.convert import SUPPORTED_OPS
from asterope.units import si


@triton.jit
def double(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(y_ptr + at, x + x, mask=at < n)


DOCS = Path(__file__).parent.parent / "docs" / "reference"
NOTICE = "<!-- Written by tools/generate_reference.py; edit the table it comes from. -->"
ROUNDING = """\
Values are rounded to nearest even unless stochastic rounding is asked for; what is too large
saturates or overflows as the caller says. Sources: OCP 8-bit Floating Point (OFP8) v1.0, OCP
Microscaling Formats (MX) v1.0."""
BLOCK_VALUES = """\
An element times its scale is the value; `nvfp4` has a float32 scale a tensor above them. The first
rule is the default."""
TILE_IR = """\
A kernel is a list of ops in a block; its loops and branches are ops with blocks of their own.
Every value has a type: an element and a shape, `fp32[128,64]`; a scalar has no shape. The
reference interpreter defines each op; `host` must give its bits (functions: within 2 ulp), and
`sim` its time."""
POINTERS = """\
`ptr<fp32>` points into HBM, `ptr<fp32, csram>` and `ptr<fp32, tsram>` into the SRAM of a cluster
and of a tile. `sem` is a semaphore."""
ENGINES = """\
The engine is who executes an op on blocks; on scalars it is the control processor. Vector ops cost
an operation or a function an element, a pass through the reshaper (move), or nothing (free, where
it is addressing)."""
TTIR = """\
What Asterope converts. For what this means for `tl` functions, see [triton.md](../triton.md)."""
CHIPS = """\
Dense rates, without sparsity. `asterope chips show NAME` prints every figure with its source;
`asterope chips show NAME --toml` a description to change."""

CLI = """\
Data goes to standard output, words and progress to standard error. Exit codes: 0 done; 1 a mistake
in Asterope; 2 wrong input, explained in one line and a hint; 130 interrupted. `asterope --debug
COMMAND` shows the traceback of an error too."""


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in lines
    )


def code(text: object) -> str:
    return f"`{text}`"


def _special(fmt: ElementFormat, name: str) -> str:
    return "yes" if getattr(fmt, f"has_{name}") else "no"


def _granularity(fmt: BlockFormat) -> str:
    if isinstance(fmt.granularity, int):
        return f"{fmt.granularity} along the reduction axis"
    if isinstance(fmt.granularity, tuple):
        return " x ".join(map(str, fmt.granularity))
    return f"one a {fmt.granularity}"


def formats_page() -> str:
    """Describe the element and block formats."""
    elements = [
        [code(f.name), f.bits, f.exponent_bits, f.mantissa_bits, f.bias, f"{f.max_value:.6g}",
         f"{f.min_normal:.4g}", f"{f.min_subnormal:.4g}", _special(f, "inf"), _special(f, "nan")]
        for f in ELEMENTS.values()
    ]  # fmt: skip
    blocks = [
        [code(b.name), code(b.element.name), code(b.scale.name), _granularity(b),
         ", ".join(code(r) for r in b.rules)]
        for b in BLOCKS.values()
    ]  # fmt: skip
    rules = [line.strip()[2:] for line in (ScaleRule.__doc__ or "").split("\n\n")[1].split(";\n")]
    header = [
        "format", "bits", "exponent", "fraction", "bias", "largest", "least normal", "least",
        "inf", "NaN",
    ]  # fmt: skip
    dots = [[code(name), *asdict(rule).values()] for name, rule in DOT_RULES.items()]
    dot_header = ["rule", *asdict(next(iter(DOT_RULES.values())))]
    return "\n\n".join(
        [
            "# Number formats",
            ROUNDING,
            "## Elements",
            table(header, elements),
            "## Blocks",
            BLOCK_VALUES,
            table(["format", "element", "scale", "shares a scale", "scale rules"], blocks),
            "## Scale rules",
            "\n".join(f"- {' '.join(rule.split())}" for rule in rules),
            "## Dot products",
            "In which order and precision products are summed.",
            table(dot_header, dots),
        ]
    )


def tile_ir_page() -> str:
    """Describe tile IR."""
    parts = [
        "# Tile IR",
        TILE_IR,
        "## Types",
        "Elements: " + ", ".join(code(e) for e in ELEMENT_BITS) + ".",
        POINTERS,
        "## Ops",
        ENGINES,
    ]
    for engine, specs in groupby(sorted(OPS.values(), key=lambda s: s.engine), lambda s: s.engine):
        is_vector = engine is Engine.VECTOR
        rows = [[code(s.name), *[s.cost] * is_vector, s.meaning] for s in specs]
        header = ["op", *["cost"] * is_vector, "meaning"]
        parts += [f"### {engine.value}", table(header, rows)]
    parts += ["## An example", _example()]
    return "\n\n".join(parts)


class _Last:
    """Remember the last launch."""

    wants_values = False
    launch: Launch

    def on_launch(self, launch: Launch) -> None:
        """Take note of a launch."""
        self.launch = launch


def _example() -> str:
    """Show a Triton kernel and what it becomes."""
    last, vector = _Last(), torch.empty(1000, device="meta")
    listen(last)
    try:
        double[(8,)](vector, vector, 1000, BLOCK=128)
    finally:
        stop_listening(last)
    text = re.sub(r' loc "[^"]*"', "", last.launch.kernel.text).strip()
    return f"```python\n@triton.jit\n{double.src}```\n\nbecomes\n\n```\n{text}\n```"


def _rate(chip: Chip, name: str) -> str:
    rate = chip.peak_flop_per_s.get(name)
    return si(rate, "flop/s") if rate else ""


def chips_page() -> str:
    """Describe the chips, then every figure of Maia 200."""
    found = [chips.get(name) for name in chips.names()]
    rows = [
        [code(c.name), code(c.profile), _rate(c, "fp4"), _rate(c, "fp8"), _rate(c, "bf16"),
         si(c.hbm.capacity_bytes, "B"), si(c.hbm.bandwidth_bytes_per_s, "B/s"),
         f"{c.power.tdp_w:.0f} W" if c.power.tdp_w else "",
         ", ".join(reversed(c.fidelities))]
        for c in found
    ]  # fmt: skip
    header = ["chip", "profile", "fp4", "fp8", "bf16", "HBM", "bandwidth", "TDP", "fidelities"]
    parts = [
        "# Chips",
        CHIPS,
        table(header, rows),
    ]  # fmt: skip
    for profile in chips.profiles("maia200"):
        chip = chips.get(f"maia200:{profile}")
        figures = [
            [code(f.path), f.value, f.unit, f.confidence, f.source, f.note]
            for f in chips.figures(chip)
        ]
        header = ["figure", "value", "unit", "confidence", "source", "note"]
        parts += [f"## maia200:{profile}", table(header, figures)]
    return "\n\n".join(parts)


def models_page() -> str:
    """Describe the published configurations."""
    rows = []
    for name in published_names():
        model, count = published_model(name), count_parameters(published_config(name))
        rows.append(
            [code(name), si(count.total, ""), si(count.active, ""), model.source, model.note]
        )
    header = ["model", "parameters", "active", "source", "note"]
    return "\n\n".join(
        [
            "# Published models",
            "Configurations without weights, for `asterope cost` and `asterope simulate`.",
            table(header, rows),
        ]
    )


def ttir_page() -> str:
    """List the ops that Triton kernels may come down to."""
    return "\n\n".join(
        [
            "# Ops of Triton IR",
            TTIR,
            "\n".join(f"- {code(name)}" for name in SUPPORTED_OPS),
        ]
    )


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """List the commands in the order of the help, a group before what is in it."""
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")


def _usage(path: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments]
    if hasattr(command, "commands"):
        words.append(f"[{' | '.join(command.commands)}]")
    return f"```\n{' '.join([path, *words, '[OPTIONS]'])}\n```"


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    return "" if value is None or value is False or value == "" else code(value)


def _parameters(command: Any) -> str:
    """Describe arguments and options, those of a panel together as in the help."""
    rows = []
    for p in command.params:
        is_option = p.param_type_name == "option"
        name = ", ".join(p.opts) if is_option else p.name.upper()
        kind = (p.metavar or "") if is_option else ""
        rows.append([code(f"{name} {kind}".strip()), _default(p), p.help or ""])
    return table(["argument or option", "default", "meaning"], rows)


def cli_page() -> str:
    """Describe every command, from the application's own help."""
    program = typer.main.get_command(app)
    parts = ["# Command line", CLI]
    for path, command in _commands(program, "asterope"):
        text = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
        parts += [f"## {path}", text, _usage(path, command), _parameters(command)]
    return "\n\n".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "chips": chips_page,
    "cli": cli_page,
    "formats": formats_page,
    "models": models_page,
    "tile_ir": tile_ir_page,
    "ttir_ops": ttir_page,
}


def main(
    check: Annotated[bool, typer.Option(help="Write nothing; fail if a page is old.")] = False,
) -> None:
    """Write docs/reference."""
    old = []
    DOCS.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        path, text = DOCS / f"{name}.md", f"{NOTICE}\n\n{page()}\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        old.append(path)
        if not check:
            path.write_text(text, encoding="utf-8")
    for path in old:
        Console(stderr=True).print(f"{path}: {'out of date' if check else 'written'}")
    sys.exit(1 if check and old else 0)


if __name__ == "__main__":
    typer.run(main)
