"""A small random checkpoint and the model in it."""

from __future__ import annotations

import pytest

import asterope as ast
from tokenized_checkpoint import write_tokenized


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A small random checkpoint that can be run."""
    return write_tokenized(tmp_path_factory.mktemp("small") / "small")


@pytest.fixture(scope="session")
def model(checkpoint):
    """The model in it."""
    return ast.load(checkpoint)
