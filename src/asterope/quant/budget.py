"""What a quantized model may lose or cost, as people write it: `ppl<1.02x`, `bytes<6GB`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, cast

from asterope.errors import ConfigError
from asterope.units import si

__all__ = ["Budget", "Measure", "parse_budget"]

Measure = Literal["ppl", "kl", "bytes", "time", "tokens/s"]

_UNITS: Mapping[Measure, Mapping[str, float]] = MappingProxyType({
    "ppl": {"": 1.0}, "kl": {"": 1.0}, "tokens/s": {"": 1.0},
    "bytes": {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "mib": 2.0**20, "gib": 2.0**30},
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6},
})  # fmt: skip
_WRITTEN = re.compile(r"\s*([a-z/]+)\s*([<>])=?\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*")
_HINT = "write ppl<1.02x, kl<0.01, bytes<0.4x, bytes<6GB, time<0.6x, time<5ms or tokens/s>1000"


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """A limit of one measure; relative ones are multiples of the original's."""

    measure: Measure
    limit: float
    is_relative: bool

    @property
    def is_of_loss(self) -> bool:
        """Whether it limits what is lost, not what is paid."""
        return self.measure in ("ppl", "kl")

    def value(self, found: float, original: float) -> float:
        """Return what is held against the limit."""
        return found / original if self.is_relative else found

    def allows(self, found: float, original: float) -> bool:
        """Tell whether a measure of a model is within the budget."""
        value = self.value(found, original)
        return value > self.limit if self.measure == "tokens/s" else value < self.limit

    def words(self, value: float) -> str:
        """Write a value that is held against the limit."""
        unit = {"bytes": "B", "time": "s"}.get(self.measure)
        if self.is_relative or unit is None:
            return f"{value:.5g}{'x' if self.is_relative else ''}"
        return si(value, unit)

    def __str__(self) -> str:
        sign = ">" if self.measure == "tokens/s" else "<"
        return f"{self.measure}{sign}{self.words(self.limit)}"


def parse_budget(text: str) -> Budget:
    """Read a budget.

    Raises: ConfigError saying what can be written.
    """
    found = _WRITTEN.fullmatch(text.lower().replace("µ", "u"))
    measure, sign, number, unit = found.groups() if found else ("", "", "", "")
    if measure not in _UNITS:
        raise ConfigError(f"{text!r} is no budget", where="budget", hint=_HINT)
    name = cast(Measure, measure)
    wanted = ">" if name == "tokens/s" else "<"
    if sign != wanted:
        raise ConfigError(f"{name} is limited by {wanted}, not {sign}", where="budget", hint=_HINT)
    is_relative = unit == "x" and name != "kl"
    if not is_relative and unit not in _UNITS[name]:
        raise ConfigError(f"{number + unit!r} is no limit of {name}", where="budget", hint=_HINT)
    try:
        limit = float(number) * (1.0 if is_relative else _UNITS[name][unit])
    except ValueError:
        raise ConfigError(f"{number!r} is no number", where="budget", hint=_HINT) from None
    if not limit > 0:
        raise ConfigError(f"{limit:g} is not above zero", where="budget", hint=_HINT)
    return Budget(measure=name, limit=limit, is_relative=is_relative)
