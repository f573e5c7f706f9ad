"""Put a report on disk: the page and its data, both or neither."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from asterope.errors import OutputError
from asterope.native import write_atomically
from asterope.report.data import RunReport
from asterope.report.page import html_page
from asterope.report.verdict import report_dict

__all__ = ["REPORT_BYTES", "check_directory", "check_file", "write_page", "write_report"]

REPORT_BYTES = 6_000_000
"""What a page takes, most of it the library that draws its charts."""


def check_directory(directory: Path, *, file_bytes: int = 1) -> None:
    """Check that a directory can be written or made and has room, and leave nothing there.

    Raises: OutputError naming it.
    """
    place = directory.expanduser().absolute()
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place) as file:
            os.posix_fallocate(file.fileno(), 0, file_bytes)
    except OSError as error:
        raise OutputError(
            f"cannot write: {error.strerror}", where=str(directory), hint="choose another directory"
        ) from None


def check_file(file: Path | None) -> None:
    """Check before anything slow begins that a file, if one is asked for, can be written.

    Raises: OutputError naming it.
    """
    if file is None:
        return
    check_directory(file.absolute().parent)
    if file.is_dir():
        raise OutputError("is a directory", where=str(file), hint=f"name a file: {file / 'out'}")


def write_page(page: str, path: Path) -> None:
    """Write a page whole or not at all.

    Raises: OutputError naming the file if it cannot be written.
    """
    try:
        write_atomically(path, page.encode())
    except OSError as error:
        raise OutputError(f"cannot write: {error.strerror}", where=str(path)) from None


def write_report(report: RunReport, directory: Path) -> tuple[Path, Path]:
    """Write report.html and report.json; return their paths.

    Raises: OutputError, with neither file new and no directory left, if one cannot be written.
    """
    directory = directory.expanduser()
    page, data = directory / "report.html", directory / "report.json"
    contents = {
        page: html_page(report),
        data: json.dumps(report_dict(report), indent=1, allow_nan=False) + "\n",
    }
    new = [place for place in (directory, *directory.parents) if not place.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace_all(directory, contents)
    except OSError as error:
        for place in new:
            if place.is_dir():
                place.rmdir()
        raise OutputError(f"cannot write: {error.strerror}", where=str(directory)) from None
    return page, data


def _replace_all(directory: Path, contents: Mapping[Path, str]) -> None:
    """Write all files beside their places before the first one gets its name."""
    for path in contents:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{path.name} is a directory")
    with tempfile.TemporaryDirectory(dir=directory, prefix=".report.") as staging:
        for path, text in contents.items():
            with (Path(staging) / path.name).open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            os.replace(Path(staging) / path.name, path)
