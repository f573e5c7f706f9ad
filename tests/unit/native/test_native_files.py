from __future__ import annotations

from pathlib import Path

import pytest
from file_limits import no_file_larger_than

from asterope.native import cache_dir, write_atomically


def test_missing_directories_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "c.bin"
    write_atomically(path, b"12")
    assert path.read_bytes() == b"12"
    assert list(path.parent.iterdir()) == [path]


def test_an_older_file_is_replaced(tmp_path):
    path = tmp_path / "x"
    write_atomically(path, b"old and long")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_full_disk_leaves_the_older_file_and_nothing_else(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with no_file_larger_than(4096), pytest.raises(OSError, match="File too large"):
        write_atomically(path, bytes(100_000))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_no_file_where_there_was_none(tmp_path):
    with no_file_larger_than(4096), pytest.raises(OSError, match="File too large"):
        write_atomically(tmp_path / "x", bytes(100_000))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_the_way_leaves_no_temporary_file(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "x", b"1")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_cache_dir_prefers_our_variable_then_xdg_then_home(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("ASTEROPE_CACHE_DIR", "/ours")
    assert cache_dir() == Path("/ours")
    monkeypatch.delenv("ASTEROPE_CACHE_DIR")
    assert cache_dir() == Path("/xdg/asterope")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_dir() == Path("/home/someone/.cache/asterope")
