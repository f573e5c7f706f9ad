"""Low-rank branches: what they take away, what they compute, and how they are stored."""

from __future__ import annotations

import itertools

import pytest
import torch

from asterope.errors import CheckpointError, ConfigError, ShapeError
from asterope.kernels import ExpertRows
from asterope.quant import (
    BranchFitting,
    InputSums,
    QuantizedLinear,
    concatenate,
    fake_inputs,
    from_tensors,
    quantize_weight,
    scheme,
    split,
    stack,
    to_tensors,
)

N, K, RANK = 48, 96, 8


def inputs(seed=0):
    """Sums over inputs, some of which are much larger than their neighbours."""
    x = torch.randn(256, K, generator=torch.Generator().manual_seed(seed))
    x[:, 5::32] *= 16
    sums = InputSums(K, name="x")
    sums.add(x)
    return sums


def weight(seed=1):
    return torch.randn(N, K, generator=torch.Generator().manual_seed(seed))


def layer(fmt="mxfp4/same+r8", seed=1):
    chosen = scheme(fmt)
    branch = BranchFitting(weight(seed), inputs(), chosen).first()
    rest = quantize_weight(branch.taken_from(weight(seed)), chosen.without_branch, name="w")
    return branch.beside(rest, inputs())


@pytest.mark.parametrize("fmt", ["mxfp4/same+r8", "nvfp4/same+r8"])
def test_a_branch_takes_more_of_what_rounding_inputs_loses_than_a_plain_decomposition(fmt):
    chosen, w, x = scheme(fmt), weight(), inputs().sample
    errors = fake_inputs(x, chosen) - x
    left, size, right = torch.linalg.svd(w, full_matrices=False)
    plain = w - left[:, :RANK] * size[:RANK] @ right[:RANK]
    found = BranchFitting(w, inputs(), chosen).first().taken_from(w)
    assert (errors @ found.T).norm() < 0.95 * (errors @ plain.T).norm()


def test_a_branch_fitted_again_is_nearer_on_the_inputs():
    chosen, w, x = scheme("mxfp4+r8"), weight(), inputs().sample
    fitting = BranchFitting(w, inputs(), chosen)
    first = fitting.first()
    rest = quantize_weight(first.taken_from(w), chosen.without_branch, name="w")
    lost = [
        float((x @ (branch.beside(rest, inputs()).dequantize() - w).T).norm())
        for branch in (first, fitting.again(rest))
    ]
    assert lost[1] < 0.9 * lost[0]


def test_a_weight_of_low_rank_leaves_nothing():
    w = weight()[:, :RANK] @ weight(2)[:RANK]
    rest = BranchFitting(w, inputs(), scheme("mxfp4+r8")).first().taken_from(w)
    assert rest.norm() < 0.01 * w.norm()


@pytest.mark.parametrize("fmt", ["mxfp4/same+r8", "nvfp4/fp8+r8", "fp8_block128+r8", "mxfp4+h+r8"])
def test_a_layer_adds_the_branch_of_inputs_as_they_come(fmt):
    made, x = layer(fmt), inputs(3).sample.to(torch.bfloat16)
    inner = (x.double() @ made.lora_a.double().T).to(torch.bfloat16).double()
    expected = made.without_branch.apply(x, out_dtype=torch.float32).double()
    expected += inner @ made.lora_b.double().T
    got = made.apply(x, out_dtype=torch.float32).double()
    most = (x.double().abs() @ weight().abs().T.double()).max()
    assert (got - expected).abs().max() < 2**-8 * most
    values = made.without_branch.dequantize() + made.lora_b.float() @ made.lora_a.float()
    torch.testing.assert_close(made.dequantize(), values)


def test_bytes_are_those_of_both_factors():
    made = layer()
    assert made.num_bytes == made.without_branch.num_bytes + 2 * RANK * (N + K)
    assert made.num_bytes == QuantizedLinear.empty(N, K, made.scheme).num_bytes


def test_parts_share_the_first_factor():
    whole = layer()
    parts = split(whole, [16, 32])
    assert [part.lora_b.shape[0] for part in parts] == [16, 32]
    again = concatenate(parts)
    assert all(torch.equal(t.view(torch.uint8), again.tensors[n].view(torch.uint8))
               for n, t in whole.tensors.items())  # fmt: skip
    with pytest.raises(ShapeError, match="lora_a"):
        concatenate([whole, layer(seed=4)])


@pytest.mark.parametrize(
    "fmt", ["mxfp4/same+r8", pytest.param("nvfp4/fp8+h+r8", marks=pytest.mark.slow)]
)
def test_each_of_stacked_experts_computes_what_it_does_alone(fmt):
    parts = [layer(fmt, seed) for seed in (1, 4, 5)]
    whole, x = stack(parts), inputs(3).sample[:29].to(torch.bfloat16)
    starts = [0, 11, 11, 29]
    made = whole.apply(x, experts=ExpertRows(torch.tensor(starts, dtype=torch.int32)))
    rows = [x[start:stop] for start, stop in itertools.pairwise(starts)]
    alone = [part.apply(own) for part, own in zip(parts, rows, strict=True) if len(own)]
    assert torch.equal(made, torch.cat(alone))
    assert torch.equal(whole.dequantize(), torch.cat([part.dequantize() for part in parts]))
    empty = QuantizedLinear.empty(3 * N, K, whole.scheme, experts=3)
    assert {n: t.shape for n, t in empty.tensors.items()} == {
        n: t.shape for n, t in whole.tensors.items()
    }
    again = split(whole, [16, 32] * 3)
    for i, part in enumerate(parts):
        for piece in again[2 * i : 2 * i + 2]:
            assert torch.equal(piece.lora_a, part.lora_a)
    with pytest.raises(ShapeError, match="out_features"):
        stack([parts[0], *split(parts[1], [16, 32])])


def test_what_is_stored_is_read_back_or_refused():
    made = layer("mxfp4/fp8+r8")
    stored = to_tensors("w", made)
    again = from_tensors("w", stored, made.scheme)
    assert torch.equal(again.dequantize(), made.dequantize())
    with pytest.raises(CheckpointError, match="svdquant_lora_a"):
        from_tensors("w", stored, made.scheme.without_branch)
    wrong = stored | {"w.svdquant_lora_b": made.lora_b[:, :4].contiguous()}
    with pytest.raises(CheckpointError, match="svdquant_lora_b"):
        from_tensors("w", wrong, made.scheme)
    broken = stored | {"w.svdquant_lora_a": made.lora_a * torch.inf}
    with pytest.raises(CheckpointError, match="finite"):
        from_tensors("w", broken, made.scheme)


def test_what_looks_at_no_text_has_no_branch():
    with pytest.raises(ConfigError, match="svdquant"):
        quantize_weight(weight(), scheme("mxfp4+r8"), name="w")
