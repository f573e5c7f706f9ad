"""Products of experts are those of each expert alone; routing, sorting and combining are exact."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from asterope.errors import ShapeError
from asterope.kernels import (
    Blocks,
    ExpertRows,
    Routing,
    block_linear,
    combine_rows,
    combine_rows_reference,
    group_by_expert,
    group_by_expert_reference,
    linear,
    quantize_groups,
    quantize_rows,
    route,
    route_reference,
    scaled_linear,
    take_rows,
    watched_choices,
)
from asterope.kernels.expected_blocks import expected_blocks
from library_kernels import random

RARELY = ("bf16", "fp8", "mxfp4")
COUNTS = (3, 0, 40, 1, 0, 17)
N, K = 70, 192


def rows_of(counts=COUNTS):
    return ExpertRows(torch.tensor([0, *counts]).cumsum(0).int())


def part(operand, rows):
    """Return some rows of a matrix or a scaled operand."""
    if isinstance(operand, torch.Tensor):
        return operand[rows]
    found = {
        name: getattr(operand, name)[rows]
        for name in ("codes", "scales", "row_scale")
        if getattr(operand, name) is not None
    }
    return dataclasses.replace(operand, **found)


def operands(kind):
    """Return a product, its two operands, and scales by the name of their parameter."""
    x = random(sum(COUNTS), K, dtype=torch.bfloat16)
    w = random(len(COUNTS) * N, K, seed=1, dtype=torch.bfloat16)
    if kind == "bf16":
        return linear, x, w, {}
    if kind == "fp8":
        scales = {"x_scale": random(len(x), seed=2).abs(), "weight_scale": random(len(w)).abs()}
        narrow = (t.to(torch.float8_e4m3fn) for t in (x, w))
        return linear, *narrow, {**scales, "out_dtype": torch.float32}
    if kind == "fp8_block128":
        return block_linear, quantize_groups(x), quantize_groups(w), {}
    weight = quantize_rows(w, kind)
    if kind == "nvfp4":  # each expert has a global scale of its own
        weight = dataclasses.replace(weight, row_scale=random(len(w), seed=5).abs())
    return scaled_linear, quantize_rows(x, kind), weight, {}


@pytest.mark.parametrize(
    "kind", ["nvfp4", "fp8_block128", *(pytest.param(k, marks=pytest.mark.slow) for k in RARELY)]
)
def test_each_row_is_what_its_expert_alone_gives(kind):
    product, x, w, extras = operands(kind)
    experts, bias = rows_of(), random(len(COUNTS) * N, seed=4)
    got = product(x, w, bias=bias, experts=experts, **extras)
    assert got.shape == (sum(COUNTS), N)
    starts = experts.starts.tolist()
    for expert, (start, end) in enumerate(itertools.pairwise(starts)):
        rows, columns = slice(start, end), slice(expert * N, (expert + 1) * N)
        own = {"x_scale": rows, "weight_scale": columns}
        scales = {k: v[own[k]] if k in own else v for k, v in extras.items()}
        alone = product(part(x, rows), part(w, columns), bias=bias[columns], **scales)
        assert torch.equal(got[rows], alone)


def test_blocks_behind_the_last_one_read_nothing_outside(monkeypatch):
    """All rows are the third expert's, in two blocks; the third block is nobody's."""
    monkeypatch.setenv("ASTEROPE_SANITIZE", "1")
    n = 16
    x, w = random(6, 32, dtype=torch.bfloat16), random(3 * n, 32, seed=1, dtype=torch.bfloat16)
    scales = {"weight_scale": random(3 * n, seed=2), "bias": random(3 * n, seed=3)}
    with watched_choices(Blocks(4, 16, 32, 8, 3)):
        got = linear(x, w, experts=rows_of((0, 0, 6)), **scales)
    own = {name: scale[2 * n :] for name, scale in scales.items()}
    assert torch.equal(got, linear(x, w[2 * n :], **own))


@pytest.mark.parametrize(("starts", "says"), [
    ([0, 5, 3, 61], "from 0 to 61"), ([0, 5, 60], "from 0 to 61"), ([1, 5, 61], "from 0 to 61"),
    ([0, 1, 2, 3, 61], "4 experts do not share 420 outputs"),
])  # fmt: skip
def test_experts_that_do_not_fit_are_refused(starts, says):
    x, w = random(61, 8), random(420 + 2 * (len(starts) == 5), 8)
    with pytest.raises(ShapeError) as caught:
        linear(x, w, experts=ExpertRows(torch.tensor(starts, dtype=torch.int32)))
    assert says.replace("420", str(len(w))) in str(caught.value)


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(1, 8, 2), (37, 5, 1), (300, 128, 8)])
def test_routing_sorting_and_combining_are_their_references(tokens, experts, top_k):
    logits = random(tokens, experts)
    for normalized in (False, True):
        routes = route(logits, Routing(top_k=top_k, normalized=normalized))
        expected = route_reference(logits, Routing(top_k=top_k, normalized=normalized))
        assert torch.equal(routes.experts, expected.experts)
        torch.testing.assert_close(routes.shares.double(), expected.shares, rtol=1e-6, atol=1e-9)
    found = group_by_expert(routes.experts, experts)
    same = group_by_expert_reference(routes.experts, experts)
    assert torch.equal(found.rows.starts, same.rows.starts)
    assert torch.equal(found.tokens, same.tokens)
    assert torch.equal(found.places, same.places)
    x = random(tokens, 1100, dtype=torch.bfloat16)
    taken = take_rows(x, found.tokens)
    assert torch.equal(taken, x[found.tokens.long()])
    assert torch.equal(taken[found.places.long()], x[:, None].expand(-1, top_k, -1))
    combined = combine_rows(taken.float(), found.places, routes.shares)
    wanted = combine_rows_reference(taken, found.places, routes.shares)
    assert float((combined - wanted).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("experts", "groups", "top_groups", "top_k", "scoring"),
    [(32, 8, 4, 5, "sigmoid"), (20, 4, 2, 3, "softmax"), (12, 1, 1, 4, "sigmoid")],
)
def test_groups_sigmoids_and_what_corrects_them_route_as_their_reference(
    experts, groups, top_groups, top_k, scoring
):
    routing = Routing(
        top_k=top_k, normalized=scoring == "sigmoid", scoring=scoring, groups=groups,
        top_groups=top_groups, scale=2.5,
    )  # fmt: skip
    logits, bias = random(37, experts), random(experts, seed=1) * 0.3
    for given in (None, bias):
        routes, expected = route(logits, routing, given), route_reference(logits, routing, given)
        assert torch.equal(routes.experts, expected.experts)
        torch.testing.assert_close(routes.shares.double(), expected.shares, rtol=1e-5, atol=1e-9)
        chosen = routes.experts // (experts // groups)
        assert max(len(set(row)) for row in chosen.tolist()) <= top_groups
    assert not torch.equal(route(logits, routing).experts, routes.experts)


def test_what_is_added_to_a_tokens_experts_is_added_last():
    rows, places = random(8, 40), torch.arange(8, dtype=torch.int32).view(4, 2)
    shares, added = random(4, 2, seed=1), random(4, 40, seed=2)
    got = combine_rows(rows, places, shares, added)
    assert torch.equal(got, combine_rows(rows, places, shares) + added)
    with pytest.raises(ShapeError, match="what is added"):
        combine_rows(rows, places, shares, added[:3])


def test_what_is_added_is_multiplied_by_the_sigmoid_of_its_gate():
    rows, places = random(8, 40), torch.arange(8, dtype=torch.int32).view(4, 2)
    shares, added, logits = random(4, 2, seed=1), random(4, 40, seed=2), random(4, 7, seed=3)
    gate = logits[:, 6:]
    got = combine_rows(rows, places, shares, added, gate)
    wanted = combine_rows_reference(rows, places, shares) + added.double() * gate.double().sigmoid()
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="gates nothing"):
        combine_rows(rows, places, shares, None, gate)


def test_equal_logits_choose_the_first_and_what_is_not_finite_shows():
    logits = torch.zeros(3, 9)
    logits[1, 3], logits[2, 5] = torch.nan, torch.inf
    routes = route(logits, Routing(top_k=4, normalized=True))
    assert routes.experts[0].tolist() == [0, 1, 2, 3]
    assert routes.shares[0].tolist() == [0.25] * 4
    assert bool(routes.shares[1:].isnan().all())
    assert bool(((routes.experts >= 0) & (routes.experts < 9)).all())


def test_experts_that_there_are_not_are_refused():
    with pytest.raises(ShapeError, match="experts 0 to 4 are not among 4"):
        group_by_expert(torch.tensor([[0, 4]], dtype=torch.int32), 4)
    with pytest.raises(ShapeError, match="5 of 4 experts"):
        route(random(3, 4), Routing(top_k=5, normalized=True))
    with pytest.raises(ShapeError, match="2 of 3 groups of 4 experts"):
        route(random(3, 4), Routing(top_k=1, normalized=True, groups=3, top_groups=2))
    with pytest.raises(ShapeError, match="3 of 2 experts"):
        route(random(3, 4), Routing(top_k=3, normalized=True, groups=2, top_groups=1))


@pytest.mark.parametrize(("rows", "experts", "block"), [(8, 128, 1), (256, 128, 8), (4096, 8, 64)])
def test_expected_blocks_are_the_mean_of_random_rows(rows, experts, block):
    generator = torch.Generator().manual_seed(3)
    chosen = torch.randint(experts, (400, rows), generator=generator)
    counts = torch.nn.functional.one_hot(chosen, experts).sum(1)
    mean = float((-(-counts // block)).sum(1).double().mean())
    assert expected_blocks(rows, experts, block) == pytest.approx(mean, rel=0.02)
    most = rows_of([rows] + [0] * (experts - 1)).most_blocks(rows, block)
    assert int((-(-counts // block)).sum(1).max()) <= most
