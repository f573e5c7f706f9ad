"""The text of prints and failed assertions, word for word."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from asterope.errors import DeviceAssertError, KernelError
from asterope.ir import Op, Value, assertion_error, parse_type, printed


def lines(values, types, *, prefix=" x: ", hex_=False, signed=None, threads=1, program=(0, 0, 0)):
    operands = [Value(parse_type(t)) for t in types]
    flags = tuple(signed or [True] * len(types))
    attrs = {"prefix": prefix, "hex": hex_, "signed": flags, "threads": threads}
    op = Op("print", operands, attrs, [])
    text = printed(op, program, [np.asarray(v) for v in values])
    assert text.endswith("\n")
    return text[:-1].split("\n")


def words(values, type_, **how):
    """Return what comes after the prefix."""
    return [line.split(" x: ")[1] for line in lines([values], [type_], **how)]


def test_a_scalar_has_an_empty_index():
    assert lines([np.int32(42)], ["i32"], program=(1, 22, 3)) == ["pid (1, 22, 3) idx () x: 42"]


def test_a_print_of_nothing_is_its_prefix():
    assert lines([], [], prefix=" no arg") == ["pid (0, 0, 0) no arg"]


@pytest.mark.parametrize(
    ("shape", "first", "last"),
    [((1,), "0", "0"), ((2,), "0", "1"), ((16,), " 0", "15"), ((128,), "  0", "127"),
     ((10,), "0", "9"), ((4, 32), "0,  0", "3, 31"), ((1, 64, 2), "0,  0, 0", "0, 63, 1")],
)  # fmt: skip
def test_indices_are_as_wide_as_the_last_one(shape, first, last):
    values = np.zeros(shape, np.int32)
    found = lines([values], [f"i32[{','.join(map(str, shape))}]"])
    assert len(found) == values.size
    assert found[0] == f"pid (0, 0, 0) idx ({first}) x: 0"
    assert found[-1] == f"pid (0, 0, 0) idx ({last}) x: 0"


def test_several_operands_are_numbered_one_after_the_other():
    found = lines([np.array([1, 2], np.int32), np.int8(-3)], ["i32[2]", "i8"], prefix=": ")
    assert found == [
        "pid (0, 0, 0) idx (0): (operand 0) 1",
        "pid (0, 0, 0) idx (1): (operand 0) 2",
        "pid (0, 0, 0) idx (): (operand 1) -3",
    ]


@pytest.mark.parametrize("elem", ["i8", "i16", "i32", "i64"])
def test_integers_are_printed_with_their_sign_or_without(elem):
    bits = int(elem[1:])
    least = np.array([-1, -(2 ** (bits - 1)), 5], f"i{bits // 8}")
    assert words(least, f"{elem}[3]") == ["-1", str(-(2 ** (bits - 1))), "5"]
    assert words(least, f"{elem}[3]", signed=[False]) == [
        str(2**bits - 1), str(2 ** (bits - 1)), "5",
    ]  # fmt: skip


def test_booleans_are_numbers():
    assert words([True, False], "i1[2]", signed=[False]) == ["1", "0"]


@pytest.mark.parametrize("elem", ["fp16", "bf16", "fp32", "fp64"])
def test_floats_have_six_digits(elem):
    dtype = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp32": "f4", "fp64": "f8"}[elem]
    values = np.array([0.5, -2.0, -0.0, np.inf, -np.inf, np.nan]).astype(dtype)
    expected = ["0.500000", "-2.000000", "-0.000000", "inf", "-inf", "nan"]
    assert words(values, f"{elem}[6]") == expected


def test_the_decimals_of_a_float_are_those_of_its_exact_value():
    assert words(np.array([0.1, 1e20], np.float32), "fp32[2]") == [
        "0.100000", "100000002004087734272.000000",
    ]  # fmt: skip


def test_fp8_is_printed_as_its_code():
    values = np.array([1.0, -1.0]).astype(ml_dtypes.float8_e5m2)
    assert words(values, "e5m2[2]", signed=[False]) == ["60", "188"]


def test_hexadecimal_numbers_have_the_digits_of_their_type():
    for elem, digits in (("i8", 2), ("i16", 4), ("i32", 8), ("i64", 16)):
        value = np.array([11], f"i{int(elem[1:]) // 8}")
        assert words(value, f"{elem}[1]", hex_=True) == [f"0x{11:0{digits}x}"]
    assert words(np.array([1.5], np.float32), "fp32[1]", hex_=True) == ["0x3fc00000"]


def test_negative_narrow_numbers_are_widened_before_they_are_hexadecimal():
    """C passes them to printf as 32 bits."""
    minus = np.array([-2], np.int16)
    assert words(minus, "i16[1]", hex_=True) == ["0xfffffffe"]
    assert words(minus, "i16[1]", hex_=True, signed=[False]) == ["0xfffe"]


def test_addresses_are_hexadecimal():
    assert words(np.array([0x7F00_0000_1234]), "ptr<fp32>[1]") == ["0x7f0000001234"]
    assert words(np.array([-16]), "ptr<fp32>[1]") == ["0xfffffffffffffff0"]


def test_the_prefix_is_taken_as_it_is():
    assert lines([np.int32(1)], ["i32"], prefix=' 100 % {} \\ "q": ') == [
        'pid (0, 0, 0) idx () 100 % {} \\ "q": 1'
    ]


def test_threads_without_an_element_of_their_own_repeat_one():
    assert len(lines([np.int32(1)], ["i32"], threads=128)) == 128
    assert len(lines([np.zeros(64)], ["fp64[64]"], threads=128)) == 128
    assert len(lines([np.zeros(256)], ["fp64[256]"], threads=128)) == 256
    assert len(lines([], [], prefix=" x: ", threads=32)) == 32


def test_a_failed_assertion_says_message_line_program_and_element():
    op = Op("assert", [Value(parse_type("i1[4,8]"))], {"message": "too large"}, [], [], "k.py:3:5")
    error = assertion_error(op, (1, 0, 2), 19)
    assert isinstance(error, DeviceAssertError)
    assert isinstance(error, (KernelError, RuntimeError))
    assert error.where == "k.py:3:5"
    assert error.what == "device-side assert failed in program (1, 0, 2), element (2, 3): too large"


def test_an_assertion_without_message_says_what_is_wrong_all_the_same():
    op = Op("assert", [Value(parse_type("i1"))], {"message": ""}, [])
    what = assertion_error(op, (0, 0, 0), 0).what
    assert what == "device-side assert failed in program (0, 0, 0): the condition does not hold"
