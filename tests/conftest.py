"""Shared by all tests: a cache of the session for compiled kernels, and `--update-golden`."""

from __future__ import annotations

import os

# Before torch is loaded: its threads, which spin a while after each operation, would take the cores
# from the other worker and from our own threads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

# Examples are to be the same on every machine and whatever ran before. Hypothesis also tries the
# constants of those modules of ours that happen to be loaded, even where it is derandomized: each
# edit of a constant anywhere gave every law other examples.
settings.register_profile("fixed", derandomize=True, database=None)
settings.load_profile("fixed")
providers._get_local_constants = lambda: providers._local_constants


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite expected outputs with what the code gives now; review the diff as code",
    )


@pytest.fixture
def update_golden(request):
    """Whether expected outputs are to be rewritten."""
    return request.config.getoption("--update-golden")


@pytest.fixture(scope="session", autouse=True)
def _session_cache(tmp_path_factory):
    """Keep compiled kernels out of the user's cache, and in one for all processes of a run."""
    before = {name: os.environ.get(name) for name in ("ASTEROPE_CACHE_DIR", "TRITON_CACHE_DIR")}
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each worker has its own in that of the run
    for name in before:
        place = root / name.lower()
        place.mkdir(exist_ok=True)
        os.environ[name] = str(place)
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
