from __future__ import annotations

import math
import random
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope.errors import IRError
from asterope.ir import Block, Kernel, Param, parse_kernel, print_kernel, verify
from ir_builder import Writer
from kernel_generator import generate
from kernel_vocabulary import THEMES

FIXED = settings(deadline=None, derandomize=True, database=None, max_examples=25)

EXAMPLE = """\
kernel @walk(%x: ptr<fp32> div 16, %n: i32) {num_stages = 2} {
  %2 = program_id() {axis = 0} : i32 loc "walk.py:7:11"
  %3 = const() {value = 0x1.8000000000000p+0} : fp32
  %4 = const() {value = 1} : i32
  %5 = iota() {start = 0} : i32[4]
  %10, %11 = for(%2, %n, %4, %3, %5) {
    (%6: i32, %7: fp32, %8: i32[4]):
    %9 = fadd(%7, %3) : fp32
    yield(%9, %8)
  } : fp32, i32[4]
  store(%x, %10) loc "walk.py:9:4"
  return()
}
"""


def kernel_of(*lines):
    return "kernel @k(%n: i32) {\n" + "\n".join(lines) + "\n  return()\n}\n"


def test_the_printed_form_is_this_one():
    kernel = parse_kernel(EXAMPLE)
    verify(kernel)
    assert print_kernel(kernel) == EXAMPLE
    assert (kernel.name, kernel.attrs) == ("walk", {"num_stages": 2})
    assert kernel.params == [Param("x", 16), Param("n")]
    assert [op.loc for op in kernel.body.ops if op.loc] == ["walk.py:7:11", "walk.py:9:4"]


@pytest.mark.parametrize("theme", THEMES)
@FIXED
@given(st.data())
def test_random_kernels_parse_back_to_the_same_text(theme, data):
    kernel = generate(data.draw, theme).kernel
    for i, op in enumerate(kernel.walk()):
        op.loc = f'a "quoted" näme.py:{i}:1' if i % 3 else ""
    text = print_kernel(kernel)
    again = parse_kernel(text)
    verify(again)
    assert print_kernel(again) == text
    assert [op.loc for op in again.walk()] == [op.loc for op in kernel.walk()]


@pytest.mark.parametrize(
    "value",
    [0, -7, 2**63 - 1, True, False, 0.1, -0.0, 5e-324, 1e308, math.inf, -math.inf, math.nan, 1.0,
     "slt", 'a "b" \\ \n é', (), (1, 2), (0.5, -3), ("x", (True, 2))],
    ids=repr,
)  # fmt: skip
def test_attributes_keep_value_and_type(value):
    writer = Writer(n="i32")
    writer.op("return", note=value)
    kernel = writer.kernel
    kernel.attrs["note"] = value
    again = parse_kernel(print_kernel(kernel))
    for found in (again.attrs["note"], again.body.ops[0].attrs["note"]):
        assert type(found) is type(value)
        assert repr(found) == repr(value)


def test_comments_and_spacing_are_free():
    text = kernel_of("# a comment", "  %0 = const ( )", "# between", "{ value=1 }:i32 # end")
    assert print_kernel(parse_kernel(text)).count("const()") == 1


def test_names_that_look_like_results_do_not_collide():
    writer = Writer(**{"n": "i32", "0": "i32", "1": "i32"})
    writer("add", writer["0"], writer["1"])
    kernel = writer.done()
    assert print_kernel(parse_kernel(print_kernel(kernel))) == print_kernel(kernel)


def test_two_different_programs_never_share_a_text():
    """The text is the key of the cache of compiled code."""

    def identity(first, second):
        writer = Writer(a="ptr<fp32>", b="ptr<fp32>", y="ptr<fp32>")
        x = writer("fsub", writer.load(first), writer.load(second))
        writer.store("y", x)
        kernel = writer.done()
        kernel.params[:2] = [Param("w"), Param("w")]
        try:
            verify(kernel)
            return print_kernel(kernel)
        except IRError:
            return first  # refusing equal names is as good

    assert identity("a", "b") != identity("b", "a")


# -- errors ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "expected 'kernel'"),
        ("kernel @k(%n: i32) {", 1, "expected '}'"),
        ("kernel @k(%n i32) {\n}", 1, "expected ':'"),
        (kernel_of("  %1 = const() {value = 1} : i32", "  %2 = iabs(%9) : i32"), 3, "%9 is not"),
        (kernel_of("  %1 = const() {value = one} : i32"), 2, "'one' is not a number"),
        (kernel_of("  %1 = const() {value 1} : i32"), 2, "expected"),
        (kernel_of("  %1 = const() {value = 1} i32"), 2, "expected ':'"),
        (kernel_of("  %1 = iabs(%n %n) : i32"), 2, "expected ','"),
        (kernel_of("  %1 = iabs(%n) : i32", "  ?"), 3, r"cannot read '\?"),
        (kernel_of() + "kernel", 5, "'kernel' follows the kernel"),
        # The place is that of the mistake, not of what follows it.
        (kernel_of("  %n = const() {value = 1} : i32"), 2, "%n is defined twice"),
        (kernel_of("  %1 = const() {value = 1} : int"), 2, "'int' names no element"),
        (kernel_of("  %1 = const() {value = 1} : i32["), 5, "the text ends inside a type"),
        ("kernel @k(%n: i32 div x) {\n  return()\n}", 1, "x"),
    ],
)
def test_errors_say_what_and_on_which_line(text, line, what):
    with pytest.raises(IRError, match=rf"^tile IR line {line}: .*{what}"):
        parse_kernel(text)


def test_values_of_an_inner_block_are_not_seen_outside():
    writer = Writer(n="i32")
    writer.for_(0, 1, 1, [], lambda i: [])
    inner = writer.kernel.body.ops[-1].blocks[0].args[0]
    writer("iabs", inner)
    with pytest.raises(IRError, match="before it is defined or outside its block"):
        writer.done()


@pytest.mark.parametrize("seed", range(12))
def test_damaged_text_gives_an_ir_error_and_nothing_else(seed):
    rng = random.Random(seed)
    pieces = ["", "}", "{", "(", ")", "[", "]", "<", ">", ",", ":", "=", '"', '"\\x"', "%", "%0"]
    pieces += ["@", "0x", "nan", "-", "1e5", "loc", "div", "true", "é", "\n", "ptr<", "fp32[,]"]
    for _ in range(60):
        start = rng.randrange(len(EXAMPLE))
        stop = min(len(EXAMPLE), start + rng.choice([0, 1, 1, 3, 20]))
        text = EXAMPLE[:start] + rng.choice(pieces) + EXAMPLE[stop:]
        with suppress(IRError):
            verify(parse_kernel(text))


def test_printing_leaves_the_kernel_alone():
    kernel = Kernel("k", [], Block())
    assert print_kernel(kernel) == "kernel @k() {\n}\n"
    assert kernel.body.ops == []
