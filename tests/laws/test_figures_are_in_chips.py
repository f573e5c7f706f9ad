"""Law 5: no figure about hardware outside `chips/`.

Every number in our Python is looked at. Three things are taken for a figure of an accelerator: a
number bound to a name that speaks of hardware (`sm_clock_rate`), a large round number (7e12), and
a number of four digits or more that some chip has (1088, with or without a prefix). What this
CPU's vectors and the formats' bit patterns are is not meant.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import asterope
from asterope import chips

ROOT = Path(asterope.__file__).parent
HARDWARE = re.compile(
    r"clock|bandwidth|flop|tdp|hbm|[ct]sram|multiprocessor|num_tiles|clusters|_hz$|per_s$|watt",
    re.IGNORECASE,
)
MIN_DIGITS = 4
PREFIXES = (1, 1e3, 1e6, 1e9, 1e12, 2**10, 2**20, 2**30)


@dataclass(frozen=True)
class Found:
    """A suspicious number, where it is, and why it is suspicious."""

    where: str
    number: float
    why: str


def digits(number):
    return len(f"{number:.12g}".split("e")[0].replace(".", "").strip("0").lstrip("-"))


def is_power(number, base):
    return number > 0 and abs(math.log(number, base) - round(math.log(number, base))) < 1e-12


def chip_figures():
    """Return the figures of all chips that are telling: four digits, no power of two."""
    found = {}
    for name in chips.names():
        for profile in chips.profiles(name):
            for row in chips.figures(chips.get(name, profile)):
                value = row.value
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    continue
                if digits(value) >= MIN_DIGITS and not is_power(value, 2):
                    found.setdefault(float(value), f"{name} {row.path}")
    return found


FIGURES = chip_figures()


def named_numbers(tree):
    """Yield (name, node) of what is bound to a name: keywords, assignments, entries, defaults."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = ((k.value if isinstance(k, ast.Constant) else None) for k in node.keys)
            yield from zip(keys, node.values, strict=True)
        elif isinstance(node, ast.keyword):
            yield node.arg, node.value
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield getattr(target, "id", getattr(target, "attr", None)), node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield getattr(node.target, "id", None), node.value
        elif isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            with_default = positional[len(positional) - len(node.defaults) :]
            pairs = [*zip(with_default, node.defaults, strict=True)]
            pairs += zip(node.kwonlyargs, node.kw_defaults, strict=True)
            yield from ((arg.arg, value) for arg, value in pairs if value is not None)


def number_of(node):
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool):
        return None
    return node.value if isinstance(node.value, (int, float)) else None


def figures_in(source, name):
    """List the numbers of a source file that look like figures of an accelerator."""
    tree = ast.parse(source)
    found = []
    for bound, node in named_numbers(tree):
        number = number_of(node)
        speaks = isinstance(bound, str) and HARDWARE.search(bound) is not None
        if number is not None and speaks and abs(number) > 1:
            found.append(Found(f"{name}:{node.lineno}", number, f"it is called {bound}"))
    for node in ast.walk(tree):
        number = number_of(node)
        if number is None or not math.isfinite(number):
            continue
        where = f"{name}:{node.lineno}"
        if number >= 1e9 and number % 1e6 == 0 and not is_power(number, 10):
            found.append(Found(where, number, "large and round"))
        for prefix in PREFIXES:
            if number * prefix in FIGURES and digits(number) >= MIN_DIGITS:
                found.append(Found(where, number, FIGURES[number * prefix]))
    return found


def sources():
    """List our Python files outside `chips/`."""
    return [p for p in sorted(ROOT.rglob("*.py")) if "chips" not in p.relative_to(ROOT).parts]


def test_no_figure_about_hardware_is_outside_chips():
    found = [f for p in sources() for f in figures_in(p.read_text(), str(p.relative_to(ROOT)))]
    assert not found, "\n".join(
        f"{f.where}: {f.number} looks like a figure: {f.why}" for f in found
    )


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ("x = 4.718592e15", 4.718592e15),  # FP8 peak
        ("def f(rate=7e12): ...", 7e12),
        ("f(tdp_w=90)", 90),
        ("t = {'multiprocessor_count': 36}", 36),
        ("SIZE = 3145728", 3145728),  # TSRAM
        ("feed = n * 1088", 1088),
        ("peak = 10145 * TFLOPS", 10145),
        ("self.clock_hz = 2_000_000", 2_000_000),
    ],
)
def test_a_figure_in_code_is_seen(source, number):
    assert number in [f.number for f in figures_in(source, "example.py")]


@pytest.mark.parametrize(
    "source",
    [
        "MASK = 0x7FFFFFFF",
        "PRIME = 2654435761",
        "PS_PER_S = 10**12",
        "SCALE = 1e15",
        "eps = 1e-6",
        "SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)",
        "clock_hz = chip.clock_hz",
        "LOG2E = 1.4426950408889634",
    ],
)
def test_ordinary_numbers_are_not_taken_for_figures(source):
    assert figures_in(source, "example.py") == []
