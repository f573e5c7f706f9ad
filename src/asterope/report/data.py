"""What a run has found, as plain data: everything a table, a page or a program wants to show.

Base units throughout: seconds, bytes, joules, flop, US dollars. None is what is not known.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Accuracy",
    "AccuracyRow",
    "Activity",
    "Assumption",
    "BreakEven",
    "ChipFacts",
    "CostRow",
    "Estimate",
    "LaunchGroup",
    "LaunchReport",
    "LineShare",
    "MemoryFit",
    "ModelFacts",
    "PowerRoof",
    "RunReport",
    "Sample",
    "Step",
    "Timed",
    "TracedLaunch",
    "plain",
]


# Thousands of numbers that a picture shows and nobody reads.
_DRAWN = {"drawn": True}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """A model in one line; `source` is a directory, a file or a published name."""

    name: str
    source: str
    family: str
    parameters: int
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_context: int
    tied_embeddings: bool
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyRow:
    """One format on the text; `kl` is in nats a token, against the original.

    `bits_per_weight` counts codes and scales of a quantized projection as checkpoints store them,
    `weight_bytes` all weights of the model as they lie in memory.
    """

    format: str
    scheme: str
    perplexity: float
    perplexity_ratio: float
    kl: float
    top1_agreement: float
    bits_per_weight: float
    weight_bytes: int
    is_original: bool = False
    is_chosen: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """All formats on one text; `is_random` says that the tokens were drawn, not written."""

    text: str
    num_tokens: int
    context: int
    is_random: bool
    rows: tuple[AccuracyRow, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The same prompt continued by both models; speeds are this computer's, measured."""

    prompt: str
    original: str
    quantized: str
    num_tokens: int
    sampling: str
    original_tokens_per_s: float
    quantized_tokens_per_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LineShare:
    """Time on a launch's critical path that a source line (file:line:column) took on an engine."""

    loc: str
    engine: str
    work: str
    time_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedLaunch:
    """One kernel launch of a script; `lines` covers its first macro-instructions.

    `clock_hz` is the clock it ran at; the power limit made it `throttled_s` longer.
    """

    kernel: str
    grid: tuple[int, int, int]
    time_s: float
    roofline_s: float
    bound_by: str
    hbm_bytes: int
    flop: int
    energy_j: float | None
    occupancy: Mapping[str, float]
    lines: tuple[LineShare, ...]
    clock_hz: float | None = None
    throttled_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchGroup:
    """The launches of one kernel at one place of the model in one step.

    `bound_s` splits `time_s` by what bound it. `flop` is that of the tensor engines, by the format
    whose rate they run at. `energy_j` is None where nothing is known of the chip's power.
    """

    place: str
    kernel: str
    launches: int
    time_s: float
    bound_s: Mapping[str, float]
    flop: Mapping[str, int]
    hbm_bytes: int
    energy_j: float | None = None

    @property
    def label(self) -> str:
        """Where and what, in one phrase."""
        return f"{self.place} · {self.kernel}" if self.place else self.kernel

    @property
    def total_flop(self) -> int:
        """Operations of the tensor engines in all formats."""
        return sum(self.flop.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Activity:
    """How busy each resource is, in equal slices of `time_s`: a share of one.

    A slice of which nothing is known is None.
    """

    time_s: float
    busy: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of a batch on `num_chips` that share it; `energy_j` is theirs, without host or site.

    `energy_parts_j` splits it by what it is spent on; the power limit made the step `throttled_s`
    longer. Of what chips exchange, `hidden_s` passed beside kernels and is in no other time.
    Operations, bytes, shares and groups are those of one chip.
    """

    phase: str
    chip: str
    fidelity: str
    scheme: str
    batch: int
    context: int
    num_tokens: int
    time_s: float
    tokens_per_s: float
    energy_j: float | None
    joules_per_token: float | None
    bound_by: str
    breakdown_s: Mapping[str, float]
    flop: int
    hbm_bytes: int
    peak_share: float
    bandwidth_share: float
    groups: tuple[LaunchGroup, ...]
    energy_parts_j: Mapping[str, float] = field(default_factory=dict)
    throttled_s: float = 0.0
    hidden_s: float = 0.0
    num_chips: int = 1
    activity: Activity | None = field(default=None, metadata=_DRAWN)

    @property
    def place(self) -> str:
        """The chip, and how many of them."""
        return self.chip if self.num_chips == 1 else f"{self.num_chips} x {self.chip}"


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryFit:
    """What weights and KV cache take of one chip, where `num_chips` share the model."""

    chip: str
    batch: int
    context: int
    weight_bytes: int
    kv_bytes: int
    capacity_bytes: int
    fits: bool
    chips_needed: int
    num_chips: int = 1

    @property
    def verb(self) -> str:
        """Say in words whether it fits."""
        if not self.fits:
            return f"needs {self.chips_needed} chips"
        return "fits" if self.num_chips == 1 else f"fits on each of {self.num_chips} chips"


@dataclass(frozen=True, kw_only=True, slots=True)
class CostRow:
    """What a million tokens cost; joules are the site's, with host, network and facility."""

    chip: str
    phase: str
    fidelity: str
    scheme: str
    num_chips: int
    tokens_per_s: float
    usd_per_mtok: float
    electricity_usd_per_mtok: float
    joules_per_token: float
    usd_per_chip_hour: float
    price_basis: str
    price_is_assumed: bool
    utilisation: float


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakEven:
    """The price at which one chip ties with another in dollars per token; None: at no price."""

    chip: str
    fidelity: str
    other: str
    other_fidelity: str
    phase: str
    usd_per_chip_hour: float | None
    same_basis: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumption:
    """One number that the result rests on; `kind` is `cost` or `chip`.

    Of a cost it is every number, of a chip those that nobody has published.
    """

    kind: str
    subject: str
    name: str
    value: float | bool | str
    unit: str
    source: str
    confidence: str
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerRoof:
    """What work at a roof draws: watts that are always drawn, joules a flop and a byte of HBM."""

    static_w: float
    flop_j: float
    hbm_byte_j: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ChipFacts:
    """The roofs of a chip: peaks by format, HBM as its maker says and as kernels reach it.

    `power_roofs` are by format, none where the energy of events is not described.
    """

    name: str
    vendor: str
    peak_flop_per_s: Mapping[str, float]
    hbm_bytes_per_s: float
    hbm_effective_bytes_per_s: float
    hbm_bytes: int
    tdp_w: float | None
    power_roofs: Mapping[str, PowerRoof] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A model's steps on chips, timed and priced; the chosen chip comes first.

    `steps` and `costs` may hold those of the unquantized model on the chosen chip too.
    """

    model: ModelFacts
    scheme: str
    chips: tuple[ChipFacts, ...]
    steps: tuple[Step, ...]
    memory: tuple[MemoryFit, ...]
    costs: tuple[CostRow, ...]
    break_even: tuple[BreakEven, ...]
    assumptions: tuple[Assumption, ...]
    notes: tuple[str, ...]

    @property
    def chip(self) -> ChipFacts:
        """The chosen chip."""
        return self.chips[0]

    def finest(self, phase: str) -> Step | None:
        """Return the step of the chosen chip at the finest fidelity it was timed at."""
        for step in self.steps:
            if (step.chip, step.phase, step.scheme) == (self.chip.name, phase, self.scheme):
                return step
        return None

    def finest_steps(self) -> tuple[Step, ...]:
        """Return the steps that a report is about: decode and prefill at their finest."""
        steps = (self.finest("decode"), self.finest("prefill"))
        return tuple(step for step in steps if step is not None)

    def cost(self, step: Step) -> CostRow | None:
        """Return what a step costs, None if it was not priced."""
        key = (step.chip, step.phase, step.fidelity, step.scheme)
        found = (c for c in self.costs if (c.chip, c.phase, c.fidelity, c.scheme) == key)
        return next(found, None)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchReport:
    """Launches on one chip, one after the other: a product, or what a script launched.

    `phase` says which of the two. `clock_hz` is the lowest clock that one of them ran at.
    """

    title: str
    chip: ChipFacts
    phase: str
    fidelity: str
    time_s: float
    roofline_s: float
    energy_j: float | None
    breakdown_s: Mapping[str, float]
    energy_parts_j: Mapping[str, float]
    groups: tuple[LaunchGroup, ...]
    activity: Activity | None = field(metadata=_DRAWN)
    clock_hz: float | None
    throttled_s: float
    command: str

    @property
    def bound_by(self) -> str:
        """What most of the time went into."""
        return max(self.breakdown_s, key=lambda name: self.breakdown_s[name], default="nothing")


Timed = Step | LaunchReport
"""A time on a chip and where it went: what charts are drawn of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """Everything one run found."""

    accuracy: Accuracy
    sample: Sample | None
    estimate: Estimate
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    command: str
    created: str


def plain(value: Any) -> Any:
    """Return dataclasses, tuples and mappings as what `json.dumps` writes.

    A number that is not finite becomes None: JSON has no word for it. What only a picture shows is
    left out.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = (f for f in dataclasses.fields(value) if "drawn" not in f.metadata)
        return {f.name: plain(getattr(value, f.name)) for f in shown}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
