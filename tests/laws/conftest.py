"""Compile the event engine once, before any test's time is taken; simulate every launch anew."""

from __future__ import annotations

import pytest

from asterope.runtime import remembered, timeline
from sim_programs import warm_up


@pytest.fixture(scope="session", autouse=True)
def _event_engine():
    warm_up()


@pytest.fixture(scope="session", autouse=True)
def _nothing_remembered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "_remembered", remembered.Remembered(room=0))
        yield
