"""The launches of a step on a GPU, each timed as the operator that the maker's library has."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from asterope import operators
from asterope.chips import Chip
from asterope.llm import Layer, Linear, Model, PlainLinear, Router
from asterope.operators import OperatorTime
from asterope.quant import QuantizedLinear
from asterope.runtime import TimedLaunch
from asterope.sim import Result
from asterope.units import PS_PER_S

__all__ = ["StepShape", "product_time", "timed_by_operators"]

_ATTENTION = "_attention_kernel"
_OF_EXPERTS = ("gate_up", "down")
_PLAIN_BITS = 16.0  # of what rotates inputs, and of a branch


@dataclass(frozen=True, kw_only=True, slots=True)
class StepShape:
    """Sequences of a step, the tokens each has at its end, and how many of them are new."""

    batch: int
    context: int
    new_tokens: int


def timed_by_operators(
    launches: Iterable[TimedLaunch], model: Model, chip: Chip, shape: StepShape
) -> tuple[TimedLaunch, ...]:
    """Return the launches with the times of operators, one after the other.

    Products go by their place in the model, attention by its layer, the rest by its bytes.

    Raises: ChipError if the chip has no calibrated operators.
    """
    start_ps, attended, timed = 0, 0, []  # `attended` counts the layers whose attention is done
    place, beside = "", list[_Product]()
    for launch in launches:
        result = launch.result
        if launch.tag != place:
            place, beside = launch.tag, []
        if launch.name in operators.COLLECTIVES:
            timed.append(dataclasses.replace(launch, start_ps=start_ps))
            start_ps += result.time_ps
            continue
        if launch.name == _ATTENTION:
            found = _attention(model, chip, shape, model.config.windows[attended])
            attended += 1
        elif launch.tag and result.flop:
            rows = shape.batch * (1 if launch.tag == "head" else shape.new_tokens)
            (rate,) = result.flop
            layer = model.layers[attended if launch.tag == "qkv" else attended - 1]
            share = None if layer.router is None else layer.router.share
            if layer.router is not None and launch.tag in _OF_EXPERTS:
                linear = getattr(layer, launch.tag)
                tokens = rows if share is None else share.tokens
                found = _experts_time(linear, layer.router, chip, tokens=tokens, rate=rate)
            else:
                if share is not None and launch.tag == "router":
                    rows = -(-rows // share.group)
                beside = beside or _products(_linear(model, layer, launch.tag), rows)
                found = _time(beside.pop(0), chip, rate=rate)
        else:
            found = operators.elementwise(chip, result.hbm_bytes)
        again = _result(result, found, chip)
        timed.append(dataclasses.replace(launch, start_ps=start_ps, result=again))
        start_ps += again.time_ps
    return tuple(timed)


def _attention(model: Model, chip: Chip, shape: StepShape, window: int | None) -> OperatorTime:
    config = model.config
    heads = operators.Heads(
        query=config.num_heads, key_value=config.num_kv_heads, dim=config.head_dim,
        cache_bits=8 * model.kv_dtype.itemsize,
    )  # fmt: skip
    if shape.new_tokens == 1:
        keys = min(shape.context, window or shape.context)
        return operators.attention_decode(chip, heads, batch=shape.batch, keys=keys)
    return operators.attention_prefill(
        chip, heads, batch=shape.batch, queries=shape.new_tokens, window=window
    )


def product_time(
    linear: Linear, chip: Chip, *, rows: int, rate: str, quantizes: bool = False
) -> OperatorTime:
    """Time a linear layer's product on a calibrated chip, in the format its kernel multiplies in.

    With `quantizes` the layer rounds its 16-bit input first. What is computed beside the product,
    to rotate inputs or in a branch, is not in it.

    Raises: ChipError if the chip has no calibrated operators; ConfigError for fewer than one row.
    """
    return _time(_product(linear, rows), chip, rate=rate, quantizes=quantizes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Product:
    """A product's sizes, and the bits of an element of each operand."""

    rows: int
    n: int
    k: int
    bits: tuple[float, float]


def _time(product: _Product, chip: Chip, *, rate: str, quantizes: bool = False) -> OperatorTime:
    return operators.gemm(
        chip, product.rows, product.n, product.k, rate=operators.rate_on(chip, rate),
        bits=product.bits, quantizes=quantizes,
    )  # fmt: skip


def _product(linear: Linear, rows: int) -> _Product:
    n, k = _features(linear)
    bits = (_activation_bits(linear), _weight_bits(linear))
    return _Product(rows=rows, n=n, k=k, bits=bits)


def _products(linear: Linear, rows: int) -> list[_Product]:
    """List the products that a linear layer launches, in their order."""
    found = [_product(linear, rows)]
    if not isinstance(linear, QuantizedLinear):
        return found
    n, k, size, rank = *_features(linear), linear.scheme.rotation, linear.scheme.rank
    plain = (_PLAIN_BITS, _PLAIN_BITS)
    if size is not None:
        found.insert(0, _Product(rows=rows * k // size, n=size, k=size, bits=plain))
    if rank is not None:
        found.append(_Product(rows=rows, n=rank, k=k, bits=plain))
        found.append(_Product(rows=rows, n=n, k=rank, bits=plain))
    return found


def _linear(model: Model, layer: Layer, place: str) -> Linear:
    if place == "head":
        return model.head
    if place == "router":
        assert layer.router is not None
        return layer.router.linear
    linear: Linear = getattr(layer, place)
    return linear


def _experts_time(
    linear: Linear, router: Router, chip: Chip, *, tokens: int, rate: str
) -> OperatorTime:
    """Time a product of experts, each with the tokens that it is assumed to see."""
    n, k = _features(linear)
    bits = (_activation_bits(linear), _weight_bits(linear))
    loads = router.assumed_loads(tokens).double().numpy()
    return operators.expert_product(
        chip, loads, n // len(loads), k, rate=operators.rate_on(chip, rate), bits=bits
    )


def _features(linear: Linear) -> tuple[int, int]:
    if isinstance(linear, QuantizedLinear):
        return linear.out_features, linear.in_features
    assert isinstance(linear, PlainLinear)
    n, k = linear.weight.shape
    return n, k


def _weight_bits(linear: Linear) -> float:
    """Return the bits of an element of the weight, without those of a branch."""
    n, k = _features(linear)
    branch = linear.branch_bytes if isinstance(linear, QuantizedLinear) else 0
    return 8 * (linear.num_bytes - branch) / (n * k)


def _activation_bits(linear: Linear) -> float:
    if isinstance(linear, PlainLinear):
        return 8.0 * linear.weight.element_size()
    assert isinstance(linear, QuantizedLinear)
    return linear.scheme.activation_bits


def _result(before: Result, found: OperatorTime, chip: Chip) -> Result:
    """Return a launch's result with an operator's time."""
    breakdown = dict(_whole_ps(found))
    time_ps = sum(breakdown.values())
    tdp_w = chip.power.tdp_w
    energy_j = None if tdp_w is None else tdp_w * time_ps / PS_PER_S
    return dataclasses.replace(
        before, fidelity="operator", time_ps=time_ps, breakdown_ps=breakdown,
        bound_by=found.bound_by, energy_j=energy_j,
        energy_parts_j={} if energy_j is None else {"tdp": energy_j},
    )  # fmt: skip


def _whole_ps(found: OperatorTime) -> Iterator[tuple[str, int]]:
    for name, seconds in found.parts.items():
        yield name, round(seconds * PS_PER_S)
