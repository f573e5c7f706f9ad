from __future__ import annotations

import numpy as np
import pytest

from asterope.errors import FormatError
from asterope.formats import BLOCKS, ELEMENTS, ScaleRule, block, element

# name: bits, largest, smallest normal, smallest positive. Sources: OCP OFP8 v1.0 table 1 (e4m3,
# e5m2), OCP MX v1.0 tables 1 to 7 (fp6, fp4, e8m0), IEEE 754 (fp16, fp32).
LIMITS = {
    "fp32": (32, 3.4028234663852886e38, 2.0**-126, 2.0**-149),
    "fp16": (16, 65504, 2.0**-14, 2.0**-24),
    "bf16": (16, 3.3895313892515355e38, 2.0**-126, 2.0**-133),
    "e4m3": (8, 448, 2.0**-6, 2.0**-9),
    "e5m2": (8, 57344, 2.0**-14, 2.0**-16),
    "e4m3fnuz": (8, 240, 2.0**-7, 2.0**-10),
    "e5m2fnuz": (8, 57344, 2.0**-15, 2.0**-17),
    "e2m3": (6, 7.5, 1, 0.125),
    "e3m2": (6, 28, 0.25, 0.0625),
    "e2m1": (4, 6, 1, 0.5),
    "e1m2": (4, 1.75, 1, 0.25),
    "e8m0": (8, 2.0**127, 2.0**-127, 2.0**-127),
    "int8": (8, 127, 1, 1),
    "int4": (4, 7, 1, 1),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_limits_are_those_of_the_standards(name):
    fmt = element(name)
    limits = (fmt.bits, fmt.max_value, fmt.min_normal, fmt.min_subnormal)
    assert limits == LIMITS[name]
    assert 2.0**fmt.emax <= fmt.max_value < 2.0 ** (fmt.emax + 1)


@pytest.mark.parametrize("name", [n for n in ELEMENTS if n != "fp32"])
def test_magnitudes_rise_with_their_codes_up_to_max_code(name):
    fmt = element(name)
    magnitudes = [fmt.value(code) for code in range(fmt.max_code + 1)]
    assert magnitudes == sorted(set(magnitudes))


@pytest.mark.parametrize("name", ELEMENTS)
def test_nan_and_infinity_codes_decode_to_nan_and_infinity(name):
    fmt = element(name)
    if fmt.has_nan:
        assert np.isnan(fmt.value(fmt.nan_code))
    else:
        with pytest.raises(FormatError, match=f"{name}: this format has no NaN"):
            _ = fmt.nan_code
    if fmt.has_inf:
        assert fmt.value(fmt.inf_code) == np.inf
    else:
        with pytest.raises(FormatError, match=f"{name}: this format has no infinity"):
            _ = fmt.inf_code


@pytest.mark.parametrize("name", ["fp16", "bf16", "e4m3", "e5m2", "e2m1", "int4", "e8m0"])
def test_code_dtype_holds_every_code(name):
    fmt = element(name)
    assert np.iinfo(fmt.code_dtype).max >= fmt.num_codes - 1


def test_value_of_a_code_that_does_not_exist_names_the_range():
    with pytest.raises(FormatError, match=r"e2m1: code 16 is outside 0\.\.15"):
        element("e2m1").value(16)


@pytest.mark.parametrize(
    ("look_up", "wrong", "right", "kind"),
    [(element, "E4M4", "e4m3", "element"), (block, "mxpf4", "mxfp4", "block")],
)
def test_unknown_name_gets_the_nearest_name_and_the_list(look_up, wrong, right, kind):
    with pytest.raises(FormatError) as error:
        look_up(wrong)
    assert error.value.what == f"there is no {kind} format named {wrong!r}"
    assert f"did you mean {right}?" in error.value.hint
    assert error.value.hint.endswith(", ".join(ELEMENTS if kind == "element" else BLOCKS))


def test_a_name_like_no_other_still_gets_the_list():
    with pytest.raises(FormatError, match="hint: the element formats are fp32, fp16"):
        element("zzzz")


def test_look_up_of_a_format_returns_it():
    assert element(element("e2m1")) is ELEMENTS["e2m1"]
    assert block(block("nvfp4")) is BLOCKS["nvfp4"]


@pytest.mark.parametrize("name", BLOCKS)
def test_block_rules_fit_the_scale_format(name):
    fmt = block(name)
    powers_of_two = {ScaleRule.FLOOR, ScaleRule.EVEN, ScaleRule.RCEIL}
    expected = powers_of_two if fmt.scale.name == "e8m0" else {ScaleRule.AMAX}
    assert set(fmt.rules) - {ScaleRule.TWO_LEVEL} == expected
    assert fmt.default_rule in fmt.rules
    assert fmt.two_level == (name == "nvfp4")
