from __future__ import annotations

import pytest

from asterope.errors import IRError
from asterope.ir import ELEMENT_BITS, MEMORY_SPACES, SEM, Ptr, Type, parse_type

SHAPES = [(), (1,), (16,), (4, 8), (2, 3, 4), (1, 1, 1, 1)]
ELEMENTS = [*ELEMENT_BITS, *(Ptr("bf16", space) for space in MEMORY_SPACES)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("elem", ELEMENTS, ids=str)
def test_what_is_printed_parses_back(elem, shape):
    type_ = Type(elem, shape)
    assert parse_type(str(type_)) == type_


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fp32", Type("fp32")),
        (" i1[128] ", Type("i1", (128,))),
        ("bf16[64,32]", Type("bf16", (64, 32))),
        ("bf16[64, 32]", Type("bf16", (64, 32))),
        ("ptr<e4m3>[2,2]", Type(Ptr("e4m3"), (2, 2))),
        ("ptr<fp32, tsram>", Type(Ptr("fp32", "tsram"))),
        ("sem", SEM),
    ],
)
def test_types_read_as_written(text, expected):
    assert parse_type(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "float", "fp32[]", "fp32[x]", "fp32[-1]", "fp32[1", "ptr<>", "ptr<fp32", "ptr<fp32, l2>",
     "ptr<ptr<fp32>>", "fp32[1][2]", "fp32[,]", "fp32[4,]", "fp32[ ]", "fp32[1 2]"],
)  # fmt: skip
def test_text_that_is_no_type_is_refused_by_name(text):
    with pytest.raises(IRError, match=r"type|element") as caught:
        parse_type(text)
    assert repr(text.strip()) in caught.value.what or repr(text) in caught.value.what
    assert caught.value.hint


def test_sizes_count_elements_and_bytes():
    assert Type("fp32", (4, 8)).num_bytes == 128
    assert Type("i1", (16,)).num_bytes == 16
    assert Type("e4m3", (3,)).num_elements == 3
    assert (Type("fp64").bits, Type(Ptr("i8")).bits, Type("i1").bits) == (64, 64, 1)
    assert Type(Ptr("i8"), (4,)).num_bytes == 32


def test_kinds_of_elements_are_told_apart():
    kinds = {
        str(t): (t.is_float, t.is_int, t.is_ptr)
        for t in (Type("fp32"), Type("i1"), Type(Ptr("fp32")), SEM)
    }
    assert kinds == {
        "fp32": (True, False, False), "i1": (False, True, False),
        "ptr<fp32>": (False, False, True), "sem": (False, False, False),
    }  # fmt: skip


def test_only_pointers_point():
    assert Type(Ptr("bf16"), (2,)).pointee == "bf16"
    with pytest.raises(IRError, match=r"fp32\[2\] is not a pointer"):
        _ = Type("fp32", (2,)).pointee
