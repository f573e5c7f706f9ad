"""Chips as data: frozen, checked when built, every figure with unit, source and confidence.

A built-in chip is one TOML file in `data/`, in the same form as a user's what-if.
"""

from __future__ import annotations

from asterope.chips.assemble import replace
from asterope.chips.catalog import get, load_toml, loads_toml, maia200, names, profiles
from asterope.chips.chip import Chip, FigureRow, Inside, figures
from asterope.chips.figure import RATE_FORMATS, Confidence, Provenance
from asterope.chips.parts import (
    Caches,
    Cluster,
    Control,
    Energy,
    Hbm,
    Network,
    Noc,
    Power,
    Reshaper,
    TensorUnit,
    Tile,
    TileDma,
    Tsram,
    VectorUnit,
)
from asterope.chips.toml_out import dumps_toml

__all__ = [
    "RATE_FORMATS",
    "Caches",
    "Chip",
    "Cluster",
    "Confidence",
    "Control",
    "Energy",
    "FigureRow",
    "Hbm",
    "Inside",
    "Network",
    "Noc",
    "Power",
    "Provenance",
    "Reshaper",
    "TensorUnit",
    "Tile",
    "TileDma",
    "Tsram",
    "VectorUnit",
    "dumps_toml",
    "figures",
    "get",
    "load_toml",
    "loads_toml",
    "maia200",
    "names",
    "profiles",
    "replace",
]
