"""Instruction sets to test on: the best and the portable one always, those between in `slow`."""

from __future__ import annotations

import pytest

from asterope.native import available_isas

__all__ = ["EACH_ISA"]


def _case(isa):
    is_always = isa in (available_isas()[0], "portable")
    return pytest.param(isa, marks=() if is_always else pytest.mark.slow)


EACH_ISA = [_case(isa) for isa in available_isas()]
"""The sets of this machine, best first, for `pytest.mark.parametrize`."""
