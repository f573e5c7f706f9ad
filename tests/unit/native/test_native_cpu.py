from __future__ import annotations

import os

import pytest

from asterope.errors import ConfigError
from asterope.native import ISAS, available_isas, best_isa, cpu, isa_named, num_cores


def test_portable_is_always_available_and_last():
    assert available_isas()[-1] == "portable"
    assert isa_named("portable").needs == ()


def test_available_isas_are_a_subset_in_the_order_of_the_table():
    assert list(available_isas()) == [name for name in ISAS if name in available_isas()]


def test_best_isa_is_the_first_available_one(monkeypatch):
    monkeypatch.delenv("ASTEROPE_ISA", raising=False)
    assert best_isa().name == available_isas()[0]


@pytest.mark.parametrize("name", available_isas())
def test_asterope_isa_forces_a_level(monkeypatch, name):
    monkeypatch.setenv("ASTEROPE_ISA", name)
    assert best_isa() is ISAS[name]


def test_unknown_isa_is_refused_with_the_list(monkeypatch):
    monkeypatch.setenv("ASTEROPE_ISA", "sse9")
    with pytest.raises(
        ConfigError, match=r"ASTEROPE_ISA: there is no instruction set 'sse9'\n.*portable"
    ):
        best_isa()


@pytest.mark.parametrize("name", [n for n in ISAS if n not in available_isas()])
def test_isa_this_cpu_lacks_is_refused_with_what_it_has(monkeypatch, name):
    monkeypatch.setenv("ASTEROPE_ISA", name)
    message = rf"ASTEROPE_ISA: this CPU does not have {name}\nhint: it has .*portable"
    with pytest.raises(ConfigError, match=message):
        best_isa()


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", " ", "²", "٢x"])
def test_a_thread_count_that_is_no_positive_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("ASTEROPE_NUM_THREADS", text)
    with pytest.raises(ConfigError, match=r"ASTEROPE_NUM_THREADS: .* is not a number of threads"):
        num_cores()


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("2", 2), ("64", 64)])
def test_thread_count_follows_the_variable(monkeypatch, text, count):
    monkeypatch.setenv("ASTEROPE_NUM_THREADS", text)
    assert num_cores() == count


@pytest.mark.parametrize("text", [None, ""])
def test_without_the_variable_all_cpus_we_may_run_on_are_used(monkeypatch, text):
    monkeypatch.delenv("ASTEROPE_NUM_THREADS", raising=False)
    if text is not None:
        monkeypatch.setenv("ASTEROPE_NUM_THREADS", text)
    assert num_cores() == len(os.sched_getaffinity(0))


def test_which_cpus_we_may_run_on_is_asked_again_a_second_later(monkeypatch):
    monkeypatch.delenv("ASTEROPE_NUM_THREADS", raising=False)
    monkeypatch.setattr(cpu, "_usable", (0, 0.0))
    for second, allowed, expected in ((10, 7, 7), (10.9, 5, 7), (11.1, 5, 5)):
        monkeypatch.setattr(cpu.time, "monotonic", lambda now=second: now)
        monkeypatch.setattr(
            cpu.os, "sched_getaffinity", lambda _, n=allowed: range(n), raising=False
        )
        assert num_cores() == expected
