"""Passes over tile IR."""

from __future__ import annotations

from asterope.compiler.flatten import flatten
from asterope.compiler.forward import forward
from asterope.compiler.simplify import simplify
from asterope.compiler.tiles import find_tiles

__all__ = ["find_tiles", "flatten", "forward", "simplify"]
