"""The first layer of a model, tuned, and how far it is from the original's."""

from __future__ import annotations

from asterope.llm import quantize_layers
from asterope.llm.states import start_states
from asterope.llm.tuning import TuningPlan, tune_layer
from asterope.quant import algorithm, scheme

__all__ = ["tuned_layer"]


def tuned_layer(model, windows, fmt):
    """Return the layer by GPTQ, the same tuned, and the error of each behind the layer."""
    plain = model.layers[0]
    start = quantize_layers(model, scheme(fmt), algorithm("gptq"), windows).layers[0]
    before, after = start_states(model, [windows, windows])
    after.advance(model, 0, plain)
    tuned = tune_layer(model, 0, plain, start, [before], [after], TuningPlan(steps=40, rate=0.02))

    def error(layer):
        found = before.copy()
        found.advance(model, 0, layer)
        wrong = found.residual + found.branch - after.residual - after.branch
        return float(wrong.square().mean())

    return start, tuned, error(start), error(tuned)
