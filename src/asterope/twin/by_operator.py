"""The launches of a step on a GPU, each timed as the operator that the maker's library has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from asterope import operators
from asterope.chips import Chip
from asterope.kernels import ATTENDING
from asterope.llm import Layer, Linear, Model, ModelConfig, PlainLinear, Router
from asterope.operators import OperatorTime
from asterope.quant import QuantizedLinear
from asterope.runtime import TimedLaunch
from asterope.sim import Result
from asterope.units import PS_PER_S

__all__ = ["StepShape", "experts_by_operators", "product_time", "timed_by_operators"]

_OF_HEADS = "_head_linear_kernel"
_BEFORE_ATTENTION = ("qkv", "q_up")
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
    attended = 0  # the layers whose attention is done
    of_heads = 0  # the products of heads before and after attention over latents
    place, left = "", list[_Product]()  # what a linear layer launches after what it has

    def found(launch: TimedLaunch) -> OperatorTime | None:
        nonlocal attended, of_heads, place, left
        if launch.tag != place:
            place, left = launch.tag, []
        if launch.name.endswith(ATTENDING):
            attended += 1
            return _attention(model, chip, shape, launch, model.config.windows[attended - 1])
        if launch.result.flop and not launch.tag:
            of_heads += launch.name == _OF_HEADS
            return _around_latents(model.config, chip, shape, launch, is_first=of_heads % 2 == 1)
        if not (launch.tag and launch.result.flop):
            return None
        rows = shape.batch * (1 if launch.tag == "head" else shape.new_tokens)
        (rate,) = launch.result.flop
        layer = model.layers[attended if launch.tag in _BEFORE_ATTENTION else attended - 1]
        share = None if layer.router is None else layer.router.share
        if layer.router is not None and launch.tag in _OF_EXPERTS:
            tokens, linear = rows if share is None else share.tokens, layer.linears[launch.tag]
            left = left or _products_of_experts(linear, layer.router, tokens)
            return _time(left.pop(0), chip, rate=rate)
        if share is not None and launch.tag == "router":
            rows = -(-rows // share.group)
        left = left or _products(_linear(model, layer, launch.tag), rows)
        return _time(left.pop(0), chip, rate=rate)

    return _retimed(launches, chip, found)


def experts_by_operators(
    launches: Iterable[TimedLaunch], router: Router, places: Mapping[str, Linear], chip: Chip,
    tokens: int,
) -> tuple[TimedLaunch, ...]:  # fmt: skip
    """Return the launches of one layer of experts with the times of operators; as for a step.

    `places` are its linear layers by their tags; those of experts are the ones that `router` feeds.
    """
    place, left = "", list[_Product]()

    def found(launch: TimedLaunch) -> OperatorTime | None:
        nonlocal place, left
        if launch.tag != place:
            place, left = launch.tag, []
        if not (launch.tag and launch.result.flop):
            return None
        (rate,) = launch.result.flop
        if launch.tag in _OF_EXPERTS:
            left = left or _products_of_experts(places[launch.tag], router, tokens)
            return _time(left.pop(0), chip, rate=rate)
        return product_time(places[launch.tag], chip, rows=tokens, rate=rate)

    return _retimed(launches, chip, found)


def _retimed(
    launches: Iterable[TimedLaunch], chip: Chip, found: Callable[[TimedLaunch], OperatorTime | None]
) -> tuple[TimedLaunch, ...]:
    """Return launches one after the other: what is `found` for each, else the time of its bytes."""
    start_ps, timed = 0, []
    for launch in launches:
        result = launch.result
        if launch.name not in operators.COLLECTIVES:
            operator = found(launch) or operators.elementwise(chip, result.hbm_bytes)
            result = _result(result, operator, chip)
        timed.append(dataclasses.replace(launch, start_ps=start_ps, result=result))
        start_ps += result.time_ps
    return tuple(timed)


def _attention(
    model: Model, chip: Chip, shape: StepShape, launch: TimedLaunch, window: int | None
) -> OperatorTime:
    config = model.config
    heads: operators.Heads | operators.LatentHeads = operators.Heads(
        query=config.num_heads, key_value=config.num_kv_heads, dim=config.head_dim,
        cache_bits=model.kv_bits,
    )  # fmt: skip
    if config.latent is not None:
        heads = operators.LatentHeads(
            query=config.num_heads, latent=config.latent.rank, rope=config.latent.rope,
            nope=config.latent.nope, value=config.latent.value,
            absorbed=launch.name.startswith("_absorbed"),
        )  # fmt: skip
    if shape.new_tokens == 1:
        keys = min(shape.context, window or shape.context)
        return operators.attention_decode(chip, heads, batch=shape.batch, keys=keys)
    return operators.attention_prefill(
        chip,
        heads,
        batch=shape.batch,
        queries=shape.new_tokens,
        window=window,
        context=shape.context - shape.new_tokens,
    )


def _around_latents(
    config: ModelConfig, chip: Chip, shape: StepShape, launch: TimedLaunch, *, is_first: bool
) -> OperatorTime:
    """Time what makes keys and values of latents, or brings queries to them and results back."""
    latent, heads = config.latent, config.num_heads
    assert latent is not None
    m, n, k = shape.batch * shape.context, heads * latent.head_size, latent.rank
    if launch.name == _OF_HEADS:
        m = shape.batch * shape.new_tokens
        n, k = (heads * latent.rank, latent.nope) if is_first else (heads * latent.value, k)
    (rate,) = launch.result.flop
    return operators.gemm(chip, m, n, k, rate=operators.rate_on(chip, rate), bits=(16, 16))


def product_time(
    linear: Linear, chip: Chip, *, rows: int, rate: str, quantizes: bool = False
) -> OperatorTime:
    """Time a linear layer's product on a calibrated chip, in the format its kernel multiplies in.

    With `quantizes` the layer rounds its 16-bit input first. What is computed beside the product,
    to rotate inputs or in a branch, is not in it.

    Raises: ChipError if the chip has no calibrated operators; ConfigError for fewer than one row.
    """
    n, k = _features(linear)
    bits = (_activation_bits(linear), _weight_bits(linear))
    product = _Product(rows=rows, n=n, k=k, bits=bits)
    return _time(product, chip, rate=rate, quantizes=quantizes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Product:
    """A product's sizes, and the bits of an element of each operand.

    Of experts `loads` are the rows of each, and `n` the outputs of one.
    """

    rows: int
    n: int
    k: int
    bits: tuple[float, float]
    loads: torch.Tensor | None = None


def _time(product: _Product, chip: Chip, *, rate: str, quantizes: bool = False) -> OperatorTime:
    if product.loads is not None:
        return operators.expert_product(
            chip, product.loads.double().numpy(), product.n, product.k,
            rate=operators.rate_on(chip, rate), bits=product.bits,
        )  # fmt: skip
    return operators.gemm(
        chip, product.rows, product.n, product.k, rate=operators.rate_on(chip, rate),
        bits=product.bits, quantizes=quantizes,
    )  # fmt: skip


def _products(linear: Linear, rows: int, loads: torch.Tensor | None = None) -> list[_Product]:
    """List the products that a linear layer launches, in their order; `loads` as in `_Product`."""
    outputs, k = _features(linear)
    n = outputs if loads is None else outputs // len(loads)
    bits = (_activation_bits(linear), _weight_bits(linear))
    found = [_Product(rows=rows, n=n, k=k, bits=bits, loads=loads)]
    if not isinstance(linear, QuantizedLinear):
        return found
    size, rank = linear.scheme.rotation, linear.scheme.rank
    plain = (_PLAIN_BITS, _PLAIN_BITS)
    if size is not None:
        found.insert(0, _Product(rows=rows * k // size, n=size, k=size, bits=plain))
    if rank is not None:
        found.append(_Product(rows=rows, n=rank, k=k, bits=plain, loads=loads))
        found.append(_Product(rows=rows, n=n, k=rank, bits=plain, loads=loads))
    return found


def _products_of_experts(linear: Linear, router: Router, tokens: int) -> list[_Product]:
    """List the products of experts, each with the tokens that it is assumed to see."""
    loads = router.assumed_loads(tokens)
    return _products(linear, int(loads.sum()), loads)


def _linear(model: Model, layer: Layer, place: str) -> Linear:
    if place == "head":
        return model.head
    if place == "router":
        assert layer.router is not None
        return layer.router.linear
    return layer.linears[place]


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
