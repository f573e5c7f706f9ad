"""Asterope: an open Maia 200 in software."""

from __future__ import annotations

__version__ = "0.1.0"
