"""How slow functions report how far they are."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, how much of it is done, and how much there is: 0, unknown."""


def silent(stage: str, done: int, total: int) -> None:
    """Report to nobody."""
