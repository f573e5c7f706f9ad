"""What a search for a mix of formats found, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["MixReport", "MixRow", "PlaceRow"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceRow:
    """One place of one layer, alone in a format: what that loses, and what it saves.

    `kl` is in nats a token against the original; a step that becomes longer saves less than zero.
    """

    layer: int
    place: str
    format: str
    kl: float
    perplexity_ratio: float
    time_saved_s: float
    bytes_saved: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MixRow:
    """One model, scored and simulated: the original, one format in all places, or a mix.

    `layers` are the formats of each layer's places. `predicted_kl` adds up what its places lose
    alone. `weight_bytes` are those in memory.
    """

    name: str
    kind: Literal["original", "one format", "mix"]
    scheme: str
    layers: tuple[tuple[str, ...], ...]
    predicted_kl: float
    kl: float
    perplexity: float
    perplexity_ratio: float
    top1_agreement: float
    weight_bytes: int
    time_s: float
    tokens_per_s: float
    usd_per_mtok: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MixReport:
    """Places one by one, and models that were measured, the original first."""

    model: str
    num_layers: int
    chip: str
    fidelity: str
    batch: int
    context: int
    algorithm: str
    calibrated_on: str | None
    text: str
    num_tokens: int
    places: tuple[PlaceRow, ...]
    mixes: tuple[MixRow, ...]
    notes: tuple[str, ...] = ()
