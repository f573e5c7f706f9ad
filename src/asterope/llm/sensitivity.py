"""What each place of each layer loses in each format, when it alone is quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from asterope.errors import ConfigError
from asterope.llm.kept_losses import KeptLosses
from asterope.llm.layer_inputs import layer_inputs
from asterope.llm.layers import Layer
from asterope.llm.model import Model
from asterope.llm.ptq import check_plain, quantize_layer
from asterope.llm.quality import Quality, Reference
from asterope.llm.states import States, in_batches, start_states
from asterope.quant import PLACES, Algorithm, Scheme

__all__ = ["PlaceLoss", "place_losses"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceLoss:
    """How good the original is with one place quantized to a scheme, and the rest as it was."""

    layer: int
    place: str
    scheme: Scheme
    quality: Quality


@torch.inference_mode()
def place_losses(
    model: Model,
    reference: Reference,
    candidates: Mapping[str, Sequence[Scheme]],
    algorithm: Algorithm,
    *,
    windows: torch.Tensor | None = None,
    kept: KeptLosses | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[PlaceLoss, ...]:
    """Quantize each place alone to each of its candidates, and score it against the original.

    `candidates` are those of each place. `windows` are what an algorithm that looks at text is
    calibrated on: a place sees the inputs that the original gives it. With `kept` each loss is
    written there when it is measured, and those that are there are not measured again.
    `progress(done, total)` counts layers that are run.

    Shapes: windows [S, T].
    Cost: each of a place's candidates runs the layers from its own on; the states of all windows
    and the curvature of one layer's inputs are held.

    Raises: as `quantize_layers`; ConfigError for an algorithm that tunes.
    """
    if algorithm.tunes:
        raise ConfigError(
            f"{algorithm.name} tunes whole layers, not a place alone", where="algorithm",
            hint="use awq_gptq, which it starts from",
        )  # fmt: skip
    check_plain(model)
    num_layers, num_candidates = len(model.layers), sum(map(len, candidates.values()))
    total, done = num_candidates * num_layers * (num_layers + 1) // 2, 0
    states = start_states(model, [batch.windows for batch in reference.batches])
    seen: list[States] = []
    if windows is not None:
        model.check_tokens(windows.flatten().tolist(), where="calibration text")
        seen = start_states(model, in_batches(windows))
    losses = []
    for index, layer in enumerate(model.layers):
        sums = None
        for place, scheme in ((p, scheme) for p, row in candidates.items() for scheme in row):
            quality = kept.get(index, place, scheme) if kept else None
            if quality is None:
                if algorithm.needs_text and sums is None:
                    sums = layer_inputs(model, index, layer, seen).sums
                alone = dict.fromkeys(PLACES) | {place: scheme}
                _, changed = quantize_layer(model, index, layer, alone, algorithm, sums)
                quality = reference.score(_finished(model, index, changed, reference, states))
                if kept:
                    kept.keep(index, place, scheme, quality)
            losses.append(PlaceLoss(layer=index, place=place, scheme=scheme, quality=quality))
            done += num_layers - index
            if progress:
                progress(done, total)
        for state in (*states, *seen):
            state.advance(model, index, layer)
    return tuple(losses)


def _finished(
    model: Model, index: int, changed: Layer, reference: Reference, states: Sequence[States]
) -> Iterator[torch.Tensor]:
    """Yield the log-probabilities of each batch with a layer changed, from that layer on."""
    layers = [changed, *model.layers[index + 1 :]]
    for batch, before in zip(reference.batches, states, strict=True):
        state = before.copy()
        for number, layer in enumerate(layers, start=index):
            state.advance(model, number, layer)
        yield batch.log_probabilities(model.finish(state.residual, state.branch))
