"""Expert weights of gpt-oss become layers of ours, bit for bit what transformers reads."""

import pytest
import torch

from asterope.errors import CheckpointError, UnsupportedError
from asterope.quant import experts_from_blocks, read_layout

NAME = "model.layers.0.mlp.experts.gate_up_proj"
EXPERTS, ROWS, GROUPS = 3, 24, 4


@pytest.fixture
def stored():
    generator = torch.Generator().manual_seed(0)

    def some(low, high, *shape):
        return torch.randint(low, high, shape, dtype=torch.uint8, generator=generator)

    return {
        f"{NAME}_blocks": some(0, 256, EXPERTS, ROWS, GROUPS, 16),
        f"{NAME}_scales": some(100, 140, EXPERTS, ROWS, GROUPS),
    }


def test_experts_are_what_transformers_makes_of_them(stored):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    theirs = convert_moe_packed_tensors(*stored.values(), dtype=torch.float32)
    ours = torch.stack([layer.dequantize() for layer in experts_from_blocks(NAME, stored)])
    assert torch.equal(ours.transpose(1, 2), theirs)


def test_experts_are_multiplied(stored):
    x = torch.randn(5, 32 * GROUPS, generator=torch.Generator().manual_seed(1))
    for layer in experts_from_blocks(NAME, stored):
        wanted = x.bfloat16().double() @ layer.dequantize().double().T
        torch.testing.assert_close(layer.apply(x).double(), wanted, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("key", "change", "what"),
    [
        ("blocks", lambda t: None, "is missing"),
        ("scales", lambda t: None, "is missing"),
        ("blocks", lambda t: t.int(), "is torch.int32, not torch.uint8"),
        ("blocks", lambda t: t.reshape(EXPERTS, ROWS, -1), "not [experts, rows, K / 32, 16]"),
        ("scales", lambda t: t[:, :, :2], "has shape [3, 24, 2], not [3, 24, 4]"),
        ("scales", lambda t: t.fill_(255), "NaN"),
    ],
)
def test_a_tensor_that_is_wrong_is_named(stored, key, change, what):
    changed = change(stored.pop(f"{NAME}_{key}"))
    if changed is not None:
        stored[f"{NAME}_{key}"] = changed
    with pytest.raises(CheckpointError) as caught:
        experts_from_blocks(NAME, stored)
    assert caught.value.where == f"{NAME}_{key}"
    assert what in caught.value.what


def test_a_whole_model_is_refused_with_what_is_missing():
    with pytest.raises(UnsupportedError, match="mixture of experts") as caught:
        read_layout({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.mlp"]})
    assert "experts_from_blocks" in caught.value.hint
