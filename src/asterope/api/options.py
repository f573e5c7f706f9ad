"""What a run is asked to do: one frozen value, checked before anything slow begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from asterope.api.estimation import EstimateOptions
from asterope.api.source import resolve_scheme
from asterope.errors import ConfigError
from asterope.quant import Scheme

__all__ = ["COMPARED_CHIPS", "COMPARED_FORMATS", "RunOptions"]

COMPARED_FORMATS = ("fp8", "mxfp8", "mxfp6", "mxfp4", "nvfp4")
COMPARED_CHIPS = ("h200", "b200")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """Ask for a run of a checkpoint.

    `format` None is mxfp4, or what the checkpoint is quantized to; `rule` is its scale rule.
    `formats` None compares all formats on small models and only the chosen one on others.
    `text` None scores held-out standard-library sources. `command` is recorded, to reproduce.

    Raises: ConfigError naming the option that is outside its limits.
    """

    checkpoint: str | Path
    format: str | None = None
    activations: str = "bf16"
    rule: str | None = None
    formats: tuple[str, ...] | None = None
    estimate: EstimateOptions = field(
        default_factory=lambda: EstimateOptions(compare=COMPARED_CHIPS)
    )
    text: Path | None = None
    max_text_tokens: int = 4096
    prompt: str | None = None
    max_new_tokens: int = 64
    dtype: str | None = None
    seed: int = 0
    command: str = ""

    def __post_init__(self) -> None:
        limits = {"max_text_tokens": (2, 1 << 30), "max_new_tokens": (0, 1 << 20)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{value} is outside {low}..{high}", where=name)

    def scheme_of(self, fmt: str | None, *, rule: str | None = None) -> Scheme | None:
        """Return the scheme of a format with these activations, None for unquantized.

        Raises: FormatError with the nearest name.
        """
        if resolve_scheme(fmt) is None:
            return None
        return resolve_scheme(fmt, activations=self.activations, rule=rule)
