"""Commands run in this process, as `asterope` runs them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from asterope.cli import main
from tokenized_checkpoint import write_tokenized


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """What it wrote for machines."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self):
        """The one line that says what is wrong, and the hint after it."""
        assert self.code == 2, self.err
        assert self.out == ""
        lines = self.err.splitlines()
        starts = [line for line in lines if line.startswith("error: ")]
        assert len(starts) == 1, self.err
        assert lines[-2] == starts[0], self.err
        assert lines[-1].startswith("hint: ")
        assert "Traceback" not in self.err
        return "\n".join(lines[-2:])


@pytest.fixture
def asterope(capfd, tmp_path, monkeypatch):
    """Run a command in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        capfd.readouterr()
        code = main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return Ended(code=code, out=out, err=err)

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A small random checkpoint that can be run."""
    return write_tokenized(tmp_path_factory.mktemp("small") / "small")
