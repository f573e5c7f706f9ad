"""Chips as data: frozen, checked when built, every figure with unit, source and confidence.

A built-in chip is one TOML file in `data/`, in the same form as a user's what-if.
"""

from __future__ import annotations

from asterope.chips.assemble import replace
from asterope.chips.catalog import get, load_toml, loads_toml, maia200, names, profiles
from asterope.chips.chip import FIDELITIES, Chip, Fidelity, FigureRow, Inside, figures
from asterope.chips.figure import RATE_FORMATS, Confidence, Provenance
from asterope.chips.parts import (
    Achieved,
    Caches,
    Cluster,
    Control,
    Energy,
    Hbm,
    HbmAccess,
    Network,
    Noc,
    Power,
    Reshaper,
    TensorUnit,
    Tile,
    TileDma,
    Tsram,
    VectorUnit,
    VoltageScaling,
)
from asterope.chips.peak_power import PeakPower, peak_power
from asterope.chips.toml_out import dumps_toml

__all__ = [
    "FIDELITIES",
    "RATE_FORMATS",
    "Achieved",
    "Caches",
    "Chip",
    "Cluster",
    "Confidence",
    "Control",
    "Energy",
    "Fidelity",
    "FigureRow",
    "Hbm",
    "HbmAccess",
    "Inside",
    "Network",
    "Noc",
    "PeakPower",
    "Power",
    "Provenance",
    "Reshaper",
    "TensorUnit",
    "Tile",
    "TileDma",
    "Tsram",
    "VectorUnit",
    "VoltageScaling",
    "dumps_toml",
    "figures",
    "get",
    "load_toml",
    "loads_toml",
    "maia200",
    "names",
    "peak_power",
    "profiles",
    "replace",
]
