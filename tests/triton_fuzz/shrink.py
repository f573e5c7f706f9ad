"""Drop the statements of a kernel that a difference does not need."""

from __future__ import annotations

import re
from dataclasses import replace

from triton_fuzz.draft import Statement
from triton_fuzz.runner import DifferenceError, differences, module_of

__all__ = ["shrink"]

_NAME = re.compile(r"\b[vqwir]\d+\b")
_TRIES = 100


def shrink(kernel, error, folder):
    """Return the error of the smallest kernel found that fails for the same reason."""
    tries, again = 0, True
    while again:
        again = False
        for place in range(_count(kernel.body)):
            smaller = replace(kernel, body=_usable(_without(kernel.body, place), set()))
            tries += 1
            if tries > _TRIES:
                return error
            found = _error_of(smaller, folder / f"smaller_{kernel.name}_{tries}.py")
            if found is not None and found.reason == error.reason:
                kernel, error, again = smaller, found, True
                break
    return error


def _error_of(kernel, path):
    try:
        differences(kernel, module_of([kernel], path))
    except DifferenceError as error:
        return error
    return None


def _inner(statement):
    return [block for block in (statement.body, statement.otherwise) if block is not None]


def _count(body):
    return sum(1 + sum(map(_count, _inner(s))) for s in body)


def _without(body, target):
    """Return statements without one, which is counted from the last line up."""
    kept = []
    for statement in reversed(body):
        blocks = []
        for block in reversed(_inner(statement)):
            size = _count(block)
            inside = 0 <= target < size
            blocks.insert(0, _without(block, target) if inside else block)
            target -= size
        if target != 0:
            kept.insert(0, Statement(statement.text, *blocks))
        target -= 1
    return kept


def _usable(body, defined):
    """Return the statements whose names are all defined before them."""
    kept = []
    for statement in body:
        head, _, rest = statement.text.partition(" = ")
        uses = rest or head
        if statement.text.startswith("for "):
            head, _, uses = statement.text.partition(" in ")
        elif not rest:
            head = ""
        if not set(_NAME.findall(uses)) <= defined:
            continue
        defined |= set(_NAME.findall(head))
        kept.append(Statement(statement.text, *[_usable(b, defined) for b in _inner(statement)]))
    return kept
