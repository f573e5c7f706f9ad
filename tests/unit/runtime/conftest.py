"""Compile the event engine once, before any test's time is taken."""

from __future__ import annotations

import pytest

from sim_programs import warm_up


@pytest.fixture(scope="session", autouse=True)
def _event_engine():
    warm_up()
