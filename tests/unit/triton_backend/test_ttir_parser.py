from __future__ import annotations

import signal
import threading
from contextlib import contextmanager

import pytest

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton_to_tiles import ttir, ttir_text

from asterope.errors import UnsupportedError
from asterope.ir import Type
from asterope.triton_backend.convert import convert_module
from asterope.triton_backend.ttir import generic_text, parse_module


@triton.jit
def add(x, y, n, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    total = tl.sum(tl.load(x + at, mask=at < n, other=float("inf")), 0)
    tl.store(y + at, total, mask=at < n)


@pytest.fixture(scope="module")
def text():
    return ttir_text(add, "*fp32 *fp32 i32", {"B": 64}, ["x"])


def function_of(body, args="%arg0: !tt.ptr<f32>, %arg1: i32"):
    """Write a module with one function in generic form."""
    return f"""
"builtin.module"() ({{
  "tt.func"() <{{function_type = () -> (), sym_name = "k", sym_visibility = "public"}}> ({{
  ^bb0({args}):
    {body}
    "tt.return"() : () -> () loc("k.py":9:4)
  }}) {{noinline = false}} : () -> () loc("k.py":1:0)
}}) : () -> () loc(unknown)
"""


def ops_of(body, **kwargs):
    (block,) = parse_module(function_of(body, **kwargs)).regions[0][0].ops[0].regions[0]
    return block.ops[:-1]


def test_generic_text_of_a_kernel_parses_to_its_ops(text):
    module = parse_module(text)
    assert module.name == "builtin.module"
    (function,) = module.regions[0][0].ops
    assert (function.name, function.attrs["sym_name"]) == ("tt.func", "add")
    assert function.attrs["arg_attrs"] == [{"tt.divisibility": 16}, {}, {}]
    (block,) = function.regions[0]
    assert [(a.name, a.type) for a in block.args] == [
        ("x", "!tt.ptr<f32>"), ("y", "!tt.ptr<f32>"), ("n", "i32"),
    ]  # fmt: skip
    names = [op.name for op in block.ops]
    assert names[-2:] == ["tt.store", "tt.return"]
    reduce = block.ops[names.index("tt.reduce")]
    assert [op.name for op in reduce.regions[0][0].ops] == ["arith.addf", "tt.reduce.return"]


def test_asking_for_generic_text_leaves_triton_printing_prettily(text):
    module = ttir(add, "*fp32 *fp32 i32", {"B": 64})
    before = str(module)
    assert generic_text(module).lstrip().startswith('"builtin.module"')
    assert str(module) == before
    assert "tt.func public @add" in before


def test_several_threads_may_ask_for_generic_text(text):
    module = ttir(add, "*fp32 *fp32 i32", {"B": 64}, ["x"])
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(generic_text(module))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert set(found) == {generic_text(module)}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("7 : i32", 7), ("-7 : i64", -7), ("0x1F : i32", 31), ("true", True), ("false", False),
        ("1.5 : f32", ("float", "1.5", "f32")),
        ("0x7FC00000 : f32", ("float", "0x7FC00000", "f32")),
        ("-2.000000e+00 : f64", ("float", "-2.000000e+00", "f64")),
        ('"a \\"b\\" c"', 'a "b" c'), ("unit", True), ("[1 : i32, true]", [1, True]),
        ("{a = 1 : i32, b}", {"a": 1, "b": True}), ("@name", "name"),
        ("array<i32: 1, -2>", [1, -2]),
        ("array<i1: true, false>", [True, False]), ("array<i32>", []),
        ("dense<0> : tensor<4xi32>", ("dense", "0", "tensor<4xi32>")),
        ("dense<[1, 2]> : tensor<2xi32>", ("dense", "[1, 2]", "tensor<2xi32>")),
        ("#tt.enum<x>", ("#tt.enum", "x")), ("!tt.ptr<f32>", "!tt.ptr<f32>"),
        ("(i32, tensor<4xf32>) -> (i1)", "(i32, tensor<4xf32>) -> (i1)"),
    ],
)  # fmt: skip
def test_attributes_are_read(written, expected):
    (op,) = ops_of(f'%0 = "x.y"() <{{a = {written}, z = 1 : i32}}> : () -> i32')
    assert op.attrs == {"a": expected, "z": 1}


def test_properties_and_attributes_are_merged():
    (op,) = ops_of('"x.y"() <{a = 1 : i32}> {b = 2 : i32} : () -> ()')
    assert op.attrs == {"a": 1, "b": 2}


def test_several_results_have_numbered_names():
    first, second = ops_of(
        '%0:2 = "x.y"() : () -> (i32, tensor<4xf32>)\n'
        '"x.z"(%0#1, %0#0) : (tensor<4xf32>, i32) -> ()'
    )
    assert [r.type for r in first.results] == ["i32", "tensor<4xf32>"]
    assert second.operands == first.results[::-1]


def test_inner_blocks_see_outer_values_and_hide_their_own():
    outer, use = ops_of(
        '%0 = "x.y"() : () -> i32\n'
        '"x.z"() ({\n^bb0(%1: i32 loc("k.py":2:2)):\n'
        '"x.w"(%0, %1) : (i32, i32) -> ()\n}) : () -> ()'
    )
    (block,) = use.regions[0]
    assert block.ops[0].operands == [outer.results[0], block.args[0]]
    inner = '"x.z"() ({\n^bb0(%1: i32):\n"x.w"() : () -> ()\n}) : () -> ()\n'
    with pytest.raises(UnsupportedError, match="a definition of %1"):
        ops_of(inner + '"x.v"(%1) : (i32) -> ()')


@pytest.mark.parametrize(
    ("loc", "expected"),
    [
        ('"k.py":3:8', "k.py:3:8"),
        ('"name"("k.py":3:8)', "k.py:3:8"),
        ('callsite("helper.py":2:4 at "k.py":7:8)', "helper.py:2:4"),
        ('callsite("/x/triton/language/standard.py":2:4 at "k.py":7:8)', "k.py:7:8"),
        ('callsite("/x/triton/language/a.py":1:1 at "s"("k.py":5:3))', "k.py:5:3"),
        ("unknown", ""),
        ('"a (b) \\"c\\".py":3:8', 'a (b) \\"c\\".py:3:8'),
    ],
)
def test_locations_are_the_users(loc, expected):
    (op,) = ops_of(f'"x.y"() : () -> () loc({loc})')
    assert op.loc == expected


@contextmanager
def at_most(seconds):
    """Interrupt what does not end."""

    def interrupt(signum, frame):
        raise TimeoutError("the parser does not end")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("part", range(8))
def test_text_cut_anywhere_is_refused_as_unreadable(text, part):
    refused = r"^triton: cannot read Triton's IR: expected"
    whole = text.rindex(" loc(")  # the module's own location may be missing
    ends = {
        *range(1 + 37 * part, len(text) - 2, 8 * 37),
        *range(whole + 2 + part, len(text) - 2, 8),
    }
    for end in sorted(ends - {whole, whole + 1}):
        with at_most(0.5), pytest.raises(UnsupportedError, match=refused):
            parse_module(text[:end])


# -- constants ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("written", "elem", "expected"),
    [
        ("dense<0x7F800000> : tensor<4xf32>", "fp32", "inf"),
        ("dense<0xFF800000> : tensor<4xf32>", "fp32", "-inf"),
        ("dense<0x7E00> : tensor<4xf16>", "fp16", "nan"),
        ("dense<0xFC00> : tensor<4xf16>", "fp16", "-inf"),
        ("dense<0x7F80> : tensor<4xbf16>", "bf16", "inf"),
        ("dense<1.500000e+00> : tensor<4xbf16>", "bf16", "1.5"),
        ("dense<0x7FF0000000000000> : tensor<4xf64>", "fp64", "inf"),
        ("dense<0x7F> : tensor<4xf8E4M3FN>", "e4m3", "nan"),
        ("dense<0x7C> : tensor<4xf8E5M2>", "e5m2", "inf"),
        ("dense<-0.000000e+00> : tensor<4xf32>", "fp32", "-0.0"),
        ("dense<4.480000e+02> : tensor<4xf8E4M3FN>", "e4m3", "448.0"),
        ("dense<-128> : tensor<4xi8>", "i8", "-128"),
        ("dense<true> : tensor<4xi1>", "i1", "True"),
        ("dense<9223372036854775807> : tensor<4xi64>", "i64", "9223372036854775807"),
    ],
)
def test_constants_keep_their_value(written, elem, expected):
    kind = written.split(" : ")[1]
    kernel = convert_module(
        parse_module(function_of(f'%0 = "arith.constant"() <{{value = {written}}}> : () -> {kind}'))
    )
    const = kernel.body.ops[0]
    assert (const.name, const.result.type) == ("const", Type(elem, (4,)))
    assert repr(const.attrs["value"]) == expected


def test_constants_with_different_elements_are_refused_with_their_line():
    body = (
        '%0 = "arith.constant"() <{value = dense<[1, 2]> : tensor<2xi32>}> '
        ': () -> tensor<2xi32> loc("k.py":4:2)'
    )
    with pytest.raises(UnsupportedError, match=r"^k\.py:4:2: constants with different elements"):
        convert_module(parse_module(function_of(body)))
