from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope.errors import FormatError, ShapeError
from asterope.formats import ELEMENTS, element, pack, packed_bytes, unpack

FIXED = settings(deadline=None, derandomize=True)
NAMES = [name for name, fmt in ELEMENTS.items() if fmt.bits <= 8]


@FIXED
@given(st.sampled_from(NAMES), st.integers(0, 3), st.integers(0, 70), st.integers(0, 2**32 - 1))
def test_unpack_inverts_pack(name, rows, num, seed):
    high = element(name).num_codes
    codes = np.random.default_rng(seed).integers(0, high, (rows, num)).astype(np.uint8)
    packed = pack(codes, name)
    assert packed.shape == (rows, packed_bytes(name, num))
    np.testing.assert_array_equal(unpack(packed, name, num), codes)


@pytest.mark.parametrize("name", ["e2m1", "e1m2", "int4"])
def test_the_even_element_of_two_is_in_the_low_nibble(name):
    assert pack(np.array([0x1, 0xA, 0x7], np.uint8), name).tolist() == [0xA1, 0x07]


def test_four_six_bit_codes_fill_three_bytes_lowest_bit_first():
    codes = np.array([0b000001, 0b000011, 0b100000, 0b111110], np.uint8)
    word = 0b111110_100000_000011_000001
    assert pack(codes, "e2m3").tolist() == [word & 255, word >> 8 & 255, word >> 16]
    assert packed_bytes("e3m2", 32) == 24


def test_eight_bit_codes_are_their_own_packing():
    codes = np.arange(256, dtype=np.uint8)
    assert pack(codes, "e4m3").tolist() == codes.tolist()


def test_a_code_too_wide_is_refused():
    with pytest.raises(FormatError, match="e2m1: code 16 does not fit in 4 bits"):
        pack(np.array([1, 16], np.uint8), "e2m1")


def test_codes_of_sixteen_bits_are_not_packed():
    with pytest.raises(FormatError, match="bf16: codes of 16 bits are not packed"):
        pack(np.zeros(2, np.uint16), "bf16")


def test_codes_must_be_bytes():
    with pytest.raises(FormatError, match="e2m1: codes are int64; an array of uint8 is needed"):
        pack(np.zeros(2, np.int64), "e2m1")


def test_rows_of_the_wrong_length_are_refused():
    with pytest.raises(ShapeError, match=r"e2m3: 8 codes take 6 bytes a row, got shape \[2, 4\]"):
        unpack(np.zeros((2, 4), np.uint8), "e2m3", 8)
