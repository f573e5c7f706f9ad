"""Files of a report: both or neither, and an older one stays until the new one is whole."""

from __future__ import annotations

import json
import resource

import pytest

from asterope.errors import OutputError
from asterope.report import REPORT_BYTES, check_directory, html_page, report_dict, write_report


def test_page_and_data_are_written(report, tmp_path):
    page, data = write_report(report, tmp_path / "a" / "b")
    assert page.read_text(encoding="utf-8") == html_page(report)
    assert json.loads(data.read_text(encoding="utf-8")) == report_dict(report)
    assert sorted((tmp_path / "a" / "b").iterdir()) == [page, data]


def test_room_that_is_asked_for_is_enough(report):
    assert len(html_page(report).encode()) < REPORT_BYTES


def test_neither_is_written_when_one_cannot_be(report, tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(OutputError) as caught:
        write_report(report, tmp_path)
    assert caught.value.where == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.fixture
def little_room():
    """Let no file grow beyond a hundred kilobytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_no_directory_is_left(report, tmp_path, little_room):
    with pytest.raises(OutputError, match="File too large"):
        write_report(report, tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_without_room_the_older_report_stays(report, tmp_path, little_room):
    for name in ("report.html", "report.json"):
        (tmp_path / name).write_text("older")
    with pytest.raises(OutputError):
        write_report(report, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "report.html": "older",
        "report.json": "older",
    }


def test_a_check_leaves_nothing(tmp_path):
    check_directory(tmp_path / "new" / "report", file_bytes=1000)
    assert list(tmp_path.iterdir()) == []


def test_a_check_finds_that_there_is_no_room(tmp_path, little_room):
    check_directory(tmp_path, file_bytes=100_000)
    with pytest.raises(OutputError, match="File too large"):
        check_directory(tmp_path, file_bytes=100_001)
