"""Text in, text out: one file for each pass, named after it, and one of invalid inputs.

A file holds cases: `=== what it shows`, the input, `---`, the output (of the pass, or the error).
Outputs are simplified, because passes leave what they replaced to `simplify`.
`pytest --update-golden` writes the outputs anew; review the difference as code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

import asterope.compiler as passes
from asterope.errors import IRError
from asterope.ir import parse_kernel, print_kernel, verify

FILES = sorted(Path(__file__).parent.glob("*.ir"))


@dataclass
class Case:
    """One input with the output it should give."""

    name: str
    given: str
    expected: str


def read(path):
    cases = []
    for part in path.read_text().split("=== ")[1:]:
        name, _, rest = part.partition("\n")
        given, _, expected = rest.partition("---\n")
        cases.append(Case(name, given.strip() + "\n", expected.strip() + "\n"))
    return cases


def write(path, cases):
    parts = [f"=== {case.name}\n{case.given}---\n{case.expected}" for case in cases]
    path.write_text("\n".join(parts))


def output(path, case):
    """Return what a case gives: the kernel after the pass, or the error."""
    try:
        kernel = parse_kernel(case.given)
        verify(kernel)
        if path.stem == "invalid":
            return "no error\n"
        kernel = passes.simplify(getattr(passes, path.stem)(kernel))
        verify(kernel)
        return print_kernel(kernel)
    except IRError as error:
        return f"{error}\n"


CASES = [(path, case) for path in FILES for case in read(path)]


@pytest.mark.parametrize(
    ("path", "case"), CASES, ids=[f"{path.stem}: {case.name}" for path, case in CASES]
)
def test_output_is_the_expected_text(path, case, update_golden):
    got = output(path, case)
    if update_golden:
        cases = read(path)
        for other in cases:
            if other.name == case.name:
                other.expected = got
        write(path, cases)
    else:
        assert got == case.expected


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_cases_of_a_file_have_different_names_and_canonical_form(path, tmp_path):
    cases = read(path)
    assert len({case.name for case in cases}) == len(cases)
    write(tmp_path / "again.ir", cases)
    assert (tmp_path / "again.ir").read_text() == path.read_text()


def test_every_pass_has_a_file():
    assert {path.stem for path in FILES} == {*passes.__all__, "invalid"}


@pytest.mark.parametrize(
    ("path", "case"),
    [(path, case) for path, case in CASES if path.stem != "invalid"],
    ids=[f"{path.stem}: {case.name}" for path, case in CASES if path.stem != "invalid"],
)
def test_a_pass_changes_nothing_the_second_time(path, case):
    """What a pass leaves, simplified, is a fixed point of it."""
    run = getattr(passes, path.stem)
    once = passes.simplify(run(parse_kernel(case.given)))
    twice = passes.simplify(run(parse_kernel(print_kernel(once))))
    assert print_kernel(twice) == print_kernel(once)
