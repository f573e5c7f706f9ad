"""Shared by all tests: a cache of the session for compiled kernels, and `--update-golden`."""

from __future__ import annotations

import os

import pytest


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
    """Keep compiled kernels out of the user's cache."""
    before = {name: os.environ.get(name) for name in ("ASTEROPE_CACHE_DIR", "TRITON_CACHE_DIR")}
    for name in before:
        os.environ[name] = str(tmp_path_factory.mktemp(name.lower()))
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
