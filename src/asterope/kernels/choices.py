"""Watch which mappings kernels are about to choose, and take others instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["taken_instead", "watched_choices"]

T = TypeVar("T")


@dataclass(slots=True)
class _Watched:
    """Choices made in a block of code, and the mapping that it is to take instead."""

    instead: Any
    of: object
    made: list[Any]


_watched: ContextVar[_Watched | None] = ContextVar("watched", default=None)


@contextmanager
def watched_choices(instead: object = None, *, of: object = None) -> Iterator[list[Any]]:
    """Give what mappings are chosen for meanwhile: `Choice` of products, `AttentionShape`.

    With `instead`, `Blocks` or `KeyBlocks`, that mapping is taken for all of its kind, or for what
    equals `of` alone.
    """
    watched = _Watched(instead, of, [])
    token = _watched.set(watched)
    try:
        yield watched.made
    finally:
        _watched.reset(token)


def taken_instead(choice: object, kind: type[T]) -> T | None:
    """Note a choice that is about to be made; return the mapping to take for it, if one is set."""
    watched = _watched.get()
    if watched is None:
        return None
    watched.made.append(choice)
    if watched.of is not None and choice != watched.of:
        return None
    return watched.instead if isinstance(watched.instead, kind) else None
