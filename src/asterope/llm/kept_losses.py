"""Losses of places on disk, so that a measurement that was killed goes on behind those it has."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from asterope.errors import OutputError
from asterope.llm.quality import Quality
from asterope.quant import Scheme

__all__ = ["KeptLosses"]


class KeptLosses:
    """One line of JSON for each loss that is measured, in a file of its own.

    The file's name says all that losses depend on but the place and the scheme.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, Quality] = {}
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                row = json.loads(line)
                self._found[row["of"]] = Quality(**row["quality"])
            except (ValueError, KeyError, TypeError):  # the writer was killed in it
                continue

    def get(self, layer: int, place: str, scheme: Scheme) -> Quality | None:
        """Return what was measured, None if nothing was."""
        return self._found.get(_name(layer, place, scheme))

    def keep(self, layer: int, place: str, scheme: Scheme, quality: Quality) -> None:
        """Add a loss.

        Raises: OutputError if it cannot be written.
        """
        row = {"of": _name(layer, place, scheme), "quality": dataclasses.asdict(quality)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(row)}\n")  # a line that was cut off ends here
        except OSError as error:
            raise OutputError(f"cannot write: {error.strerror}", where=str(self.path)) from None

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


def _name(layer: int, place: str, scheme: Scheme) -> str:
    return f"{layer}.{place}: {scheme.describe()}"
