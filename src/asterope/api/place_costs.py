"""What each place of each layer takes in each format: time of a decode step, bytes of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from asterope import llm
from asterope.api.estimation import EstimateOptions
from asterope.api.language_model import LanguageModel
from asterope.chips import Chip, Fidelity
from asterope.quant import PLACES, Mix, Scheme
from asterope.twin import StepTime, time_step
from asterope.units import PS_PER_S

__all__ = ["PlaceCosts", "Workload", "place_costs"]

_Key = tuple[int, str, Scheme | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """The decode step that is timed: a token for each of `batch` sequences of `context`."""

    chip: Chip
    batch: int
    context: int
    fidelity: Fidelity

    @classmethod
    def of(cls, options: EstimateOptions, model: LanguageModel) -> Workload:
        """Return the decode step that options ask for, at the finest fidelity if they say none.

        Raises: ChipError, ConfigError as `EstimateOptions`.
        """
        chip = options.chips()[0]
        return cls(
            chip=chip, batch=options.batch, context=options.context_of(model),
            fidelity=options.fidelity or chip.fidelities[-1],
        )  # fmt: skip

    def time(self, model: llm.Model) -> StepTime:
        """Simulate the step of a model, which needs no weights."""
        return time_step(
            model, self.chip, batch=self.batch, context=self.context, fidelity=self.fidelity
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceCosts:
    """Time and bytes of each place with each of its schemes, and of all else.

    Launches come one after the other, so that the time of a step is the sum of its places'.
    """

    time_ps: Mapping[_Key, int]
    num_bytes: Mapping[_Key, int]
    other_ps: int
    other_bytes: int

    def time_s(self, mix: Mix) -> float:
        """Return the time of a step of the mix."""
        return (self.other_ps + sum(self.time_ps[key] for key in _keys(mix))) / PS_PER_S

    def weight_bytes(self, mix: Mix) -> int:
        """Return the bytes of the mix's weights in memory."""
        return self.other_bytes + sum(self.num_bytes[key] for key in _keys(mix))


def _keys(mix: Mix) -> Iterator[_Key]:
    for layer in range(len(mix.layers)):
        for place, scheme in mix.of(layer).items():
            yield layer, place, scheme


def place_costs(
    model: LanguageModel, candidates: Mapping[str, Sequence[Scheme]], workload: Workload
) -> PlaceCosts:
    """Simulate a step of the original, and one for each scheme that any place may have.

    Raises: as `twin.time_step`.
    """
    num_layers = model.config.num_layers
    dtype = str(model.model.dtype).removeprefix("torch.")
    time_ps: dict[_Key, int] = {}
    num_bytes: dict[_Key, int] = {}
    other_ps = other_bytes = 0
    for scheme in (None, *dict.fromkeys(s for place in PLACES for s in candidates[place])):
        row = tuple(scheme if scheme in candidates[place] else None for place in PLACES)
        shapes = llm.model_from_config(
            model.source.config, scheme=Mix((row,) * num_layers), dtype=dtype
        )
        step = workload.time(shapes)
        times = _times_by_place(step, num_layers)
        for place, chosen in zip(PLACES, row, strict=True):
            for layer in range(num_layers):
                time_ps[layer, place, chosen] = times[place][layer]
                num_bytes[layer, place, chosen] = sum(
                    linear.num_bytes
                    for own, linear in shapes.layers[layer].linears.items()
                    if llm.scheme_place(own) == place
                )
        if scheme is None:
            other_ps = sum(launch.result.time_ps for launch in step.launches) - sum(
                map(sum, times.values())
            )
            other_bytes = shapes.weight_bytes - sum(num_bytes.values())
    return PlaceCosts(
        time_ps=time_ps, num_bytes=num_bytes, other_ps=other_ps, other_bytes=other_bytes
    )


def _times_by_place(step: StepTime, num_layers: int) -> dict[str, list[int]]:
    """Return the time of each place in each layer, which begins with the first of them."""
    found = {place: [0] * num_layers for place in PLACES}
    layer, before = -1, ""
    for launch in step.launches:
        if launch.tag == PLACES[0] and before != PLACES[0]:
            layer += 1
        before, place = launch.tag, llm.scheme_place(launch.tag)
        if place in found:
            found[place][layer] += launch.result.time_ps
    return found
