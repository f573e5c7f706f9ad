from __future__ import annotations

import re

import pytest

from asterope.errors import IRError
from asterope.ir import OPS, Builder, Op, Type, Value, parse_kernel, verify
from ir_builder import Writer

HEAD = """
  %one = const() {value = 1.0} : fp32
  %v = const() {value = 1.0} : fp32[8]
  %m = const() {value = 1.0} : fp32[8,4]
  %i = iota() {start = 0} : i32[8]
  %b = const() {value = true} : i1[8]
  %a = broadcast(%p) : ptr<fp32>[8]
  %h = const() {value = 0} : i8[8,32]
  %t = const() {value = 1.0} : fp32[2,4,4]
  %u = const() {value = 1.0} : fp32[3,4,4]
"""

# One line that is wrong, and what the verifier says about it.
REFUSED = [
    ("frobnicate(%n)", "there is no op 'frobnicate'"),
    ("%x = add(%n) : i32", "takes 2 operands, has 1"),
    ("%x = add(%n, %l) : i32", "operands i32, i64 differ from result i32"),
    ("%x = add(%one, %one) : fp32", "fp32 is not one of i1, i8, i16, i32, i64"),
    ("%x = fadd(%n, %n) : i32", "i32 is not one of e4m3"),
    ("%x = iabs(%one) : fp32", "not one of"),
    ("%x = fma(%one, %one) : fp32", "takes 3 operands, has 2"),
    ('%x = directed(%one, %one) {of = "frem"} : fp32', "has no operation 'frem'"),
    ('%x = directed(%one) {of = "sqrt"} : fp32', "has no rounding None"),
    ('%x = directed(%one) {of = "fma", rounding = "up"} : fp32', "takes 3 operands, has 1"),
    ('%x = directed(%n) {of = "sqrt", rounding = "up"} : i32', "not one of fp32, fp64"),
    ("%x = jn(%n, %one) : fp64", "of fp32 gives fp64"),
    ("%x = jn(%one, %one) : fp32", "of order fp32 at fp32"),
    ("%x = exp(%v) : fp32", "differ from result fp32"),
    ("%x, %y = fneg(%one) : fp32, fp32", "gives 1 results, has 2"),
    ('%x = cmp(%n, %l) {pred = "eq"} : i1', "compares i32 with i64"),
    ('%x = cmp(%n, %n) {pred = "olt"} : i1', "has no predicate 'olt'"),
    ('%x = cmp(%n, %n) {pred = "slt"} : i32', "gives i32, not i1"),
    ('%x = cmp(%one, %one) {pred = "slt"} : i1', "cannot compare fp32"),
    ('%x = fcmp(%one, %one) {pred = "slt"} : i1', "has no predicate 'slt'"),
    ("%x = fcmp(%one, %one) : i1", "has no predicate None"),
    ("%x = select(%n, %v, %v) : fp32[8]", "chooses by i32"),
    ("%x = select(%b, %one, %one) : fp32", r"chooses by i1\[8\]"),
    ("%x = select(%c, %v, %one) : fp32[8]", "chooses between"),
    ("%x = convert(%n) : i64", "has no conversion None"),
    ('%x = convert(%n) {how = "float"} : fp32', "cannot convert i32 to fp32 by float"),
    ('%x = convert(%v) {how = "float"} : fp16', "changes the shape"),
    ('%x = convert(%v) {how = "float", rounding = "up"} : fp16[8]', "has no rounding 'up'"),
    ('%x = convert(%n) {how = "sext"} : i8', "sext|narrow|width"),
    ('%x = convert(%n) {how = "zext"} : i1', "zext|narrow|width"),
    ('%x = convert(%n) {how = "trunc"} : i64', "trunc|wide|width"),
    ("%x = bitcast(%n) : fp16", "cannot reread i32 as fp16"),
    ("%x = ptr_to_int(%n) : i64", "cannot turn i32 into an integer"),
    ("%x = ptr_to_int(%p) : i32", "cannot turn"),
    ("%x = int_to_ptr(%n) : ptr<fp32>", "i32 to ptr<fp32>"),
    ("%x = const() : fp32", "has no number `value`"),
    ('%x = const() {value = "1"} : fp32', "has no number `value`"),
    ("%x = const() {value = inf} : i32", "inf"),
    ("%x = const() {value = nan} : i8[8]", "nan"),
    ("%x = iota() {start = 0} : i64[8]", r"gives i64\[8\], not i32"),
    ("%x = iota() : i32[8]", "has no integer `start`"),
    ("%x = broadcast(%v) : fp32[16]", "cannot stretch"),
    ("%x = broadcast(%v) : fp32[8,4]", "cannot stretch"),
    ("%x = broadcast(%one) : fp16[8]", "changes the element"),
    ("%x = expand(%v) {axis = 2} : fp32[8,1]", "has no axis 2"),
    ("%x = expand(%v) {axis = 0} : fp32[8,1]", r"gives fp32\[8,1\] for fp32\[8\] at axis 0"),
    ("%x = expand(%v) : fp32[8,1]", "has no axis None"),
    ("%x = reshape(%v) : fp32[4]", "cannot reshape"),
    ("%x = reshape(%v) : i32[8]", "cannot reshape"),
    ("%x = transpose(%m) {order = [0, 0]} : fp32[8,8]", "has no order"),
    ("%x = transpose(%m) {order = [1, 0]} : fp32[8,4]", "gives"),
    ("%x = transpose(%m) {order = 1} : fp32[8,4]", "order"),
    ("%x = join(%v, %m) : fp32[8,2]", "cannot join"),
    ("%x, %y = split(%m) : fp32[8], fp32[8]", "cannot split"),
    ("%x, %y = split(%one) : fp32, fp32", "cannot split"),
    ('%x = reduce(%m) {axis = 2, combine = "fadd"} : fp32[8]', "has no axis 2"),
    ('%x = reduce(%m) {axis = 0, combine = "sum"} : fp32[4]', "has no combiner 'sum'"),
    ('%x = reduce(%m) {axis = 0, combine = "add"} : fp32[4]', "cannot combine"),
    ('%x = reduce(%m) {axis = 0, combine = "fadd"} : fp32[8]', "without axis 0"),
    ("%x = popcount(%i) : i32", "counts an i1 block"),
    ("%x = popcount(%b) : i64", "gives an i32"),
    ('%x = dot(%v, %m, %m) {order = "pairs"} : fp32[8,4]', "not matrices"),
    ('%x = dot(%m, %m, %m) {order = "pairs"} : fp32[8,4]', "do not share K"),
    ('%x = dot(%h, %m, %m) {order = "pairs"} : fp32[8,4]', "do not share K"),
    ("%x = dot(%q, %m, %w) : fp32[8,4]", "has no accumulation `order`"),
    ('%x = dot(%q, %m, %m) {order = "pairs"} : fp32[4,4]', "gives"),
    ('%x = dot(%q, %m, %n) {order = "pairs"} : i32', r"is not \[M,N\]"),
    ('%x = dot_scaled(%h, %g, %w) {a_format = "e4m3"} : fp32[8,4]', "has no formats"),
    ('%x = dot(%t, %u, %t) {order = "pairs"} : fp32[2,4,4]', "not batches of as many"),
    ('%x = dot_scaled(%one, %g, %w) {a_format = "e4m3", b_format = "e4m3"} : fp32[8,4]', "matri"),
    (
        '%x = dot_scaled(%h, %g, %w) {a_format = "e2m1", b_format = "e4m3"} : fp32[8,4]',
        "do not share K",
    ),
    (
        '%x=dot_scaled(%h,%g,%w,%h) {a_format="e4m3",b_format="e4m3",b_scale=true} : fp32[8,4]',
        "does not fit 4 rows",
    ),
    (
        '%x = dot_scaled(%q, %m, %w) {a_format = "e4m3", b_format = "e4m3"} : fp32[8,4]',
        "e4m3",
    ),
    ("%x = addptr(%p, %one) : ptr<fp32>", "cannot add fp32"),
    ("%x = addptr(%p, %i) : ptr<fp32>[8]", "cannot add"),
    ("%x = addptr(%p, %n) : ptr<i32>", "gives ptr<i32>"),
    ("%x = load(%v) : fp32[8]", "is not a pointer"),
    ("%x = load(%a) : fp16[8]", "does not fit"),
    ("%x = load(%a, %b) : fp32[8]", "mask and other do not match"),
    ("%x = load(%a, %c) {mask = true} : fp32[8]", "mask i1 does not fit"),
    ("%x = load(%a, %b, %one) {mask = true, other = true} : fp32[8]", "other fp32 does not fit"),
    ("store(%a, %one)", "does not fit"),
    ("store(%a)", "takes pointers and a value"),
    ("%x = load_tile(%a, %i) : fp32[8]", "is not one address"),
    ("%x = load_tile(%p, %i) : fp32[8,4]", "do not match"),
    ("%x = load_tile(%p, %i, %i) : fp32[8,4]", "offset i32"),
    ("%x = load_tile(%p, %i) {mask_dims = [1]} : fp32[8]", "has no dimensions"),
    ("%x = load_tile(%p, %i, %i) {mask_dims = [0]} : fp32[8]", "mask i32"),
    ("%x = load_tile(%p, %i) {mask_dims = 0} : fp32[8]", "mask_dims|dimensions"),
    ("%x = load_tile(%p, %i, %v) {other = true} : fp32[8]", "is not a scalar"),
    ("store_tile(%v, %p)", "takes a value, a base and offsets"),
    ("store_tile(%v, %p, %v)", r"offset fp32\[8\]"),
    ('%x = atomic_rmw(%a) {combine = "fadd"} : fp32[8]', "takes pointers and a value"),
    ('%x = atomic_rmw(%a, %v) {combine = "fadd"} : fp32[8]', "has no memory order"),
    (
        '%x = atomic_rmw(%a, %v) {combine = "add", memory_order = "relaxed"} : fp32[8]',
        "cannot combine fp32 by add",
    ),
    (
        '%x = atomic_rmw(%a, %v) {combine = "nand", memory_order = "relaxed"} : fp32[8]',
        "has no combiner 'nand'",
    ),
    (
        '%x = atomic_rmw(%a, %v) {combine = "exchange", memory_order = "relaxed"} : fp32',
        "gives fp32 for",
    ),
    (
        '%x = atomic_rmw_tile(%v, %p, %v) {combine = "fadd", memory_order = "relaxed"} : fp32[8]',
        r"offset fp32\[8\]",
    ),
    ('%x = atomic_cas(%a, %v) {memory_order = "acquire"} : fp32[8]', "takes 3 operands"),
    ('%x = atomic_cas(%a, %i, %v) {memory_order = "acquire"} : fp32[8]', "compares i32"),
    ('atomic_cas(%p, %one, %one) {memory_order = "acquire"}', "gives 1 results, has 0"),
    ("%x = program_id() {axis = 3} : i32", "has no grid axis 3"),
    ("%x = num_programs() {axis = 0} : i64", "gives i32"),
    ("%x = for(%n, %n) {\n (%j: i32):\n yield()\n} : i32", "takes lo, hi, step"),
    ("for(%n, %n, %l) {\n (%j: i32):\n yield()\n}", "counts in one integer type"),
    ("for(%n, %n, %n) {\n (%j: i64):\n yield()\n}", "body takes"),
    ("%x = for(%n, %n, %n, %one) {\n (%j: i32, %k: fp32):\n yield()\n} : fp32", "yield gives"),
    ("%x = for(%n, %n, %n, %one) {\n (%j: i32, %k: fp32):\n yield(%k)\n} : i32", "results differ"),
    ("for(%n, %n, %n) {\n (%j: i32):\n condition(%c)\n}", "not yield"),
    ("for(%n, %n, %n) {\n (%j: i32):\n}", "block is empty"),
    ("%x = while(%n) {\n (%j: i32):\n condition(%c, %j)\n} : i32", "has two blocks"),
    (
        "%x = while(%n) {\n (%j: i32):\n condition(%j)\n (%k: i32):\n yield(%k)\n} : i32",
        "condition gives",
    ),
    ("if(%n) {\n ():\n yield()\n ():\n yield()\n}", "takes an i1 and two blocks"),
    ("if(%c) {\n ():\n yield()\n}", "takes an i1 and two blocks"),
    ("%x = if(%c) {\n ():\n yield(%n)\n ():\n yield(%one)\n} : i32", r"yield gives \(fp32\)"),
    ("%x = exchange(%m) {axis = 2, mask = 1} : fp32[8,4]", "has no axis 2"),
    ("%x = exchange(%m) {axis = 1, mask = 4} : fp32[8,4]", "has no mask 4 below 4"),
    ("%x = exchange(%three) {axis = 0, mask = 1} : fp32[3]", "3 is not a power of two"),
    ("%x = exchange(%m) {axis = 1, mask = 1} : fp32[4,8]", r"gives fp32\[4,8\]"),
    ("%x = gather(%m, %i) {axis = 0} : fp32[8]", r"i32\[8\] does not pick from fp32\[8,4\]"),
    ("%x = gather(%v, %v) {axis = 0} : fp32[8]", "does not pick"),
    ("%x = gather(%v, %i) {axis = 0} : fp32[4]", r"gives fp32\[4\]"),
    ("%x = gather(%v, %i) : fp32[8]", "has no axis None"),
    ("%x = histogram(%v) : i32[4]", r"counts no fp32\[8\]"),
    ("%x = histogram(%i, %i) {mask = true} : i32[4]", "mask does not fit"),
    ("%x = histogram(%i, %b) : i32[4]", "takes 1 operands, has 2"),
    ("%x = histogram(%i) : i64[4]", r"gives i64\[4\], not i32"),
    ('%x = scan(%v) {axis = 0, combine = "fadd"} : fp32[8]', "whether in `reverse`"),
    ('%x = scan(%v) {axis = 1, combine = "fadd", reverse = true} : fp32[8]', "has no axis 1"),
    ('%x = scan(%v) {axis = 0, combine = "fadd", reverse = true} : fp32[4]', "other types"),
    ('%x = scan(%v) {axis = 0, combine = "add", reverse = true} : fp32[8]', "cannot combine"),
    ('%x, %y = reduce(%v, %v) {axis = 0, combine = "fadd"} : fp32, fp32', "combines 2 blocks"),
    ("%x = reduce() {axis = 0} : fp32", "takes no block"),
    ("%x = reduce(%v, %m) {axis = 0} : fp32", "different shapes"),
    ("%x = reduce(%a) {axis = 0} {\n (%j: i32):\n yield()\n} : ptr<fp32>", "take addresses"),
    ("%x = reduce(%v) {axis = 0} {\n (%j: fp32):\n yield(%j)\n} : fp32", r"gets \(fp32, fp32\)"),
    (
        '%x = reduce(%v) {axis = 0, combine = "fadd"} {\n (%j: fp32):\n yield(%j)\n} : fp32',
        "has a combiner and a block",
    ),
    (
        "%x = reduce(%v) {axis = 0} {\n (%j: fp32, %k: fp32):\n yield(%n)\n} : fp32",
        r"yield gives \(i32\), not \(fp32\)",
    ),
    ("%x = map(%v) {pack = 1} : fp32[8]", "does not have one block"),
    ("%x = map(%v) {\n (%j: fp32):\n yield(%j)\n} : fp32[8]", "has no number `pack`"),
    ("%x = map(%v) {pack = 3} {\n (%j: fp32):\n yield(%j)\n} : fp32[8]", "3 at a time"),
    ("%x = map(%v) {pack = 1} {\n (%j: fp32):\n yield(%j)\n} : fp32[4]", r"not give \(8,\)"),
    ("%x = map(%v) {pack = 2} {\n (%j: fp32):\n yield(%j)\n} : fp32[8]", "block takes"),
    ("yield()", "ends its block early"),
    (
        "for(%n, %n, %n) {num_stages = 0} {\n (%j: i32):\n yield()\n}",
        "has no number of stages: 0",
    ),
    ('print(%n) {hex = false, prefix = "", signed = [true]}', "has no number of `threads`: None"),
    ('print(%n) {hex = false, prefix = "", signed = [], threads = 1}', "a flag an operand"),
    ('print(%n) {hex = 1, prefix = "", signed = [true], threads = 1}', "whether `hex`"),
    ("print() {hex = false, signed = [], threads = 1}", "has no text `prefix`"),
    ('assert(%n) {message = ""}', "takes i1, not i32"),
    ("assert(%b)", "has no text `message`"),
    ('assert(%b, %b) {message = ""}', "takes 1 operands, has 2"),
    ("%x = issue(%n) {numbers = 1} : sem", "names no `instruction`"),
    ("%x = issue(%one) {numbers = 1, instruction = 0} : sem", "scalar integers"),
    ("%x = issue(%n) {instruction = 0} : sem", "waits for semaphores"),
    ("%x = issue() {instruction = 0} : i32", "signals one semaphore"),
    ("%x = signalled() : i32", "gives a semaphore"),
]  # fmt: skip


def wrong(line):
    extra = """
  %q = const() {value = 1.0} : fp32[8,8]
  %w = const() {value = 1.0} : fp32[8,4]
  %g = const() {value = 0} : i8[32,4]
  %three = const() {value = 1.0} : fp32[3]
"""
    body = HEAD + extra + "  " + line + ' loc "user.py:7:3"\n  return()\n'
    return parse_kernel(f"kernel @bad(%p: ptr<fp32>, %n: i32, %l: i64, %c: i1) {{{body}}}")


@pytest.mark.parametrize(("line", "what"), REFUSED, ids=[line for line, _ in REFUSED])
def test_wrong_op_is_refused_with_kernel_op_and_place(line, what):
    name = re.search(r"(\w+)\(", line).group(1)
    with pytest.raises(IRError, match=rf"^bad: \w+( at user\.py:7:3)?: .*(?:{what})") as caught:
        verify(wrong(line))
    assert caught.value.where in (f"bad: {name} at user.py:7:3", f"bad: {name}")


def test_every_op_has_a_refused_case_of_its_family():
    checks = {OPS[name].check for name in OPS}
    names = {re.search(r"(\w+)\(", line).group(1) for line, _ in REFUSED}
    refused = {OPS[name].check for name in names if name in OPS}
    # The checks of elementwise ops are closures, one for each line of the table.
    missing = [c for c in checks - refused if c.__qualname__.count("<locals>") == 0]
    assert missing == []


def test_a_body_without_return_is_refused():
    with pytest.raises(IRError, match=r"^k: body does not end with return"):
        verify(Writer(n="i32").kernel)


def test_parameters_and_arguments_must_match_in_number():
    writer = Writer(n="i32")
    kernel = writer.done()
    kernel.params.pop()
    with pytest.raises(IRError, match=r"^k: parameters and body arguments differ in number"):
        verify(kernel)


def test_use_before_definition_is_refused():
    writer = Writer(n="i32")
    late = Value(Type("i32"))
    writer("iabs", late)
    with pytest.raises(IRError, match=r"^k: iabs: uses a value before it is defined"):
        writer.done()


def test_a_value_of_one_branch_is_not_seen_in_the_other():
    writer = Writer(c="i1", n="i32")
    seen = []
    writer.if_(
        writer["c"],
        lambda: seen.append(writer("iabs", writer["n"])) or [],
        lambda: [writer("iabs", seen[0])][:0],
    )
    with pytest.raises(IRError, match="outside its block"):
        writer.done()


def test_a_result_belongs_to_its_op():
    writer = Writer(n="i32")
    value = writer("iabs", writer["n"])
    thief = Op("iabs", [writer["n"]], {}, [value])
    writer.kernel.body.ops.append(thief)
    with pytest.raises(IRError, match="does not own its results"):
        writer.done()


def test_ops_after_the_terminator_are_refused():
    writer = Writer(n="i32")
    writer.op("return")
    writer("iabs", writer["n"])
    Builder(writer.kernel.body).op("return")
    with pytest.raises(IRError, match=r"^k: return: ends its block early"):
        verify(writer.kernel)
