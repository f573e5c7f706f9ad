"""The command line: it parses and prints, and leaves the work to the floors below."""

from __future__ import annotations

from asterope.cli.app import app, main

__all__ = ["app", "main"]
