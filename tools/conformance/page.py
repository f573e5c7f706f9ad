"""Results kept as data, and the page made of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from conformance.reasons import reason_of

__all__ = ["add_files", "load", "render", "save", "summarise"]

Results = Mapping[str, Mapping[str, Any]]
Data = dict[str, Any]

_TITLE = """\
# Other people's tests

<!-- Written by tools/triton_conformance.py from triton_conformance.json; do not edit. -->

What Triton's own tests, its tutorials, and the tests of kernel collections do when their kernels
come to Asterope. They are run from a checkout, unchanged, in processes of their own, with a time
limit a test; nothing of them is in this project. The tests are handed `--device cpu`, and a few
things that they look at but do not use, such as the capability of a CUDA device.

    python tools/triton_conformance.py CHECKOUT
    python tools/triton_conformance.py CHECKOUT --collection NAME --sample 10

References are made of torch's operators on a CPU, of which some add up in half precision. A test
that fails by its assertion is run again from the same seeds with each of those operators computed
in float64 and rounded once; if it then passes, it counts as passed and is counted apart, too.
"""
_EXACT = """\
Of those that passed, {} failed at first by their assertion, and pass, from the same seeds and with
the same tolerance, once each of torch's operators on the CPU, which the references are made of, is
computed in float64 and rounded once: there torch's own fp16, bf16 or fp32 was the wrong side.\
"""
_OUTCOMES = ("passed", "failed", "skipped", "deselected")
_MAX_SKIPS = 12


def summarise(results: Results) -> Data:
    """Count the results of one file, and group what did not pass by reason."""
    counts = dict.fromkeys(_OUTCOMES, 0)
    groups: dict[str, Counter[str]] = {name: Counter() for name in _OUTCOMES[1:]}
    examples: dict[str, str] = {}
    for test, result in sorted(results.items()):
        outcome = {"xfailed": "passed"}.get(result["outcome"], result["outcome"])
        counts[outcome] += 1
        if outcome == "passed":
            continue
        message = str(result["message"])
        reason = (
            reason_of(test, message) if outcome == "failed" else message.partition("\n")[0][:100]
        )
        groups[outcome][reason] += 1
        examples.setdefault(reason, test)
    return {
        **counts,
        "exact": sum(r.get("reference") == "float64" for r in results.values()),
        "seconds": round(sum(float(r.get("seconds", 0)) for r in results.values())),
        "reasons": {
            outcome: [[reason, n, examples[reason]] for reason, n in group.most_common()]
            for outcome, group in groups.items()
        },
    }


def load(path: Path) -> Data:
    """Read the data of earlier runs."""
    return json.loads(path.read_text()) if path.exists() else {}


def save(path: Path, data: Data) -> None:
    """Write the data."""
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


def add_files(
    data: Data, section: str, about: Mapping[str, Any], files: Mapping[str, Data]
) -> None:
    """Put the summaries of files into a section in place of their earlier ones."""
    found = data.setdefault(section, {"files": {}})
    found.update(about)
    found["files"].update(files)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(_cell(str(cell)) for cell in row)} |"
    yield ""


def _grouped(files: Mapping[str, Data], outcome: str) -> list[tuple[str, int, str]]:
    total: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for _, summary in sorted(files.items()):
        for reason, count, example in summary["reasons"][outcome]:
            total[reason] += count
            examples.setdefault(reason, example)
    return [(reason, count, examples[reason]) for reason, count in total.most_common()]


def _section(section: Data) -> Iterator[str]:
    files = section["files"]
    yield f"## {section['title']}"
    yield ""
    yield section["about"]
    if section.get("needs"):
        yield f"Beside pytest it needs {', '.join(section['needs'])}."
    yield ""
    rows = [
        [f"`{name}`", *(s[o] for o in _OUTCOMES), s["seconds"]] for name, s in sorted(files.items())
    ]
    sums = [sum(s[o] for s in files.values()) for o in (*_OUTCOMES, "seconds")]
    header = ["file", "passed", "failed", "skipped", "not run", "seconds"]
    yield from _table(header, [*rows, ["**all**", *sums]])
    if exact := sum(s.get("exact", 0) for s in files.values()):
        yield _EXACT.format(exact)
        yield ""
    failed = _grouped(files, "failed")
    if failed:
        yield "What fails, and why:"
        yield ""
        shown = [[reason, count, f"`{example}`"] for reason, count, example in failed]
        yield from _table(["reason", "tests", "for example"], shown)
    skipped = _grouped(files, "skipped")
    if skipped:
        rest = sum(count for _, count, _ in skipped[_MAX_SKIPS:])
        more = [["for other reasons", rest]] if rest else []
        yield "What the tests themselves skip:"
        yield ""
        yield from _table(
            ["reason", "tests"], [*([r, n] for r, n, _ in skipped[:_MAX_SKIPS]), *more]
        )
    left_out = [[f"`{k}`", v] for k, v in sorted(section.get("not_run", {}).items())]
    left_out += [[f"{n} tests", reason] for reason, n, _ in _grouped(files, "deselected")]
    if left_out:
        yield "What is not run:"
        yield ""
        yield from _table(["what", "why"], left_out)


def render(data: Data) -> str:
    """Write the page: Triton's tests first, then the tutorials, then the collections."""
    order = sorted(data, key=lambda name: ({"triton": 0, "tutorials": 1}.get(name, 2), name))
    lines = [_TITLE]
    for name in order:
        lines += _section(data[name])
    return "\n".join(lines).rstrip("\n") + "\n"
