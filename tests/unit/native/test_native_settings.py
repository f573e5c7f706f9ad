"""Environment variables, read as `os.environ.get` reads them."""

from __future__ import annotations

import os

import pytest

from asterope.native import setting


@pytest.mark.parametrize("value", ["", "avx2", "ä \udcff"])
def test_a_setting_is_what_the_environment_holds_at_the_time(monkeypatch, value):
    monkeypatch.delenv("ASTEROPE_TEST", raising=False)
    assert setting("ASTEROPE_TEST") == ""
    monkeypatch.setenv("ASTEROPE_TEST", value)
    assert setting("ASTEROPE_TEST") == os.environ["ASTEROPE_TEST"] == value


def test_an_environment_of_another_kind_is_read_too(monkeypatch):
    monkeypatch.setattr(os, "environ", {"ASTEROPE_TEST": "1"})
    assert (setting("ASTEROPE_TEST"), setting("ASTEROPE_OTHER")) == ("1", "")
