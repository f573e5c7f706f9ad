"""Layers in training compute what the runtime's do, and their gradients go straight through."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from asterope.errors import (
    CheckpointError,
    ConfigError,
    FormatError,
    ShapeError,
    UnsupportedError,
)
from asterope.quant import (
    ACTIVATIONS,
    WEIGHT_FORMATS,
    Calibrated,
    FakeQuantizedLinear,
    InputSums,
    Scheme,
    algorithm,
    common_amax,
    concatenate,
    prepare_qat,
    quantize_calibrated,
    quantize_weight,
    quantized_layers,
    scheme,
    split,
)
from asterope.quant.fake_quant import fake_inputs, fake_weight

N, K, TOKENS = 24, 96, 5
SCHEMES = list(
    dict.fromkeys(
        Scheme(weights=weights, activations=activations, rotation=rotation)
        for weights in WEIGHT_FORMATS
        if weights != "fp8_block128"  # whose scales are of several rows: refused, below
        for activations in ACTIVATIONS
        for rotation in (None, 16)
    )
)
ALL = pytest.mark.parametrize("plan", SCHEMES, ids=lambda plan: plan.name)
LEARNED = pytest.mark.parametrize("learn_scales", [False, True])


def layer_of(plan, *, learn_scales=False, seed=0):
    torch.manual_seed(seed)
    plain = nn.Linear(K, N)
    with torch.no_grad():
        plain.weight.mul_(torch.logspace(-2, 1, N)[:, None])
    return FakeQuantizedLinear(plain, plan, name="w", learn_scales=learn_scales)


def inputs(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, TOKENS, K, generator=generator) * 3


def same_bits(mine, theirs):
    assert mine.tensors.keys() == theirs.tensors.keys()
    for name, tensor in theirs.tensors.items():
        assert torch.equal(mine.tensors[name].view(torch.uint8), tensor.view(torch.uint8)), name


@ALL
@LEARNED
def test_forward_is_what_the_runtime_computes_but_for_the_order_of_sums(plan, learn_scales):
    layer, x = layer_of(plan, learn_scales=learn_scales), inputs()
    rows = x.view(-1, K)
    found, expected = layer(x).view(-1, N), layer.quantized().apply(rows)
    operands, weight = fake_inputs(rows, plan), fake_weight(layer.weight, plan, name="w", amax=None)
    bound = (operands.abs() @ weight.abs().T + layer.bias.abs()) * (K + 4) * 2.0**-22
    assert ((found - expected).abs() <= bound).all()


@ALL
@LEARNED
def test_layer_is_converted_to_what_rounding_its_weight_gives(plan, learn_scales):
    layer = layer_of(plan, learn_scales=learn_scales)
    expected = quantize_weight(layer.weight, plan, name="w", bias=layer.bias.detach())
    same_bits(layer.quantized(), expected)


@ALL
def test_values_of_the_weight_are_those_of_the_converted_layer(plan):
    layer = layer_of(plan)
    values = fake_weight(layer.weight, plan, name="w", amax=None)
    if plan.rotation is None:
        assert torch.equal(values, layer.quantized().dequantize())
    else:
        turned_back = layer.quantized().dequantize()
        torch.testing.assert_close(values.norm(), turned_back.norm(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_has_the_type_of_the_input(dtype):
    assert layer_of(scheme("mxfp4/same"))(inputs().to(dtype)).dtype == dtype


@ALL
def test_gradients_are_those_of_the_product_of_rounded_operands(plan):
    if plan.weights == "mxfp4_e1m2":  # whose default rule saturates
        plan = dataclasses.replace(plan, rule="rceil")
    layer, x = layer_of(plan), inputs().requires_grad_()
    upstream = torch.randn(2, TOKENS, N, generator=torch.Generator().manual_seed(2))
    layer(x).backward(upstream)
    rows, sums = x.detach().view(-1, K), upstream.view(-1, N)
    a, w = fake_inputs(rows, plan), fake_weight(layer.weight, plan, name="w", amax=None).detach()
    turn = torch.eye(K)
    if plan.rotation is not None:
        turn = prepare_rotation(plan.rotation)
    torch.testing.assert_close(layer.weight.grad, sums.T @ a @ turn, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(x.grad.view(-1, K), sums @ w @ turn, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(layer.bias.grad, sums.sum(0))


def prepare_rotation(size):
    from scipy.linalg import hadamard

    return torch.block_diag(*[torch.tensor(hadamard(size)).float() / size**0.5] * (K // size))


def test_what_saturates_gets_no_gradient():
    plan = Scheme(weights="mxfp4", activations="same", rule="floor")
    x = torch.zeros(1, K)
    x[0, :3] = torch.tensor([7.5, 6.9, 1.0])  # 7.5 rounds to 6, by more than half a step of 2
    x.requires_grad_()
    fake_inputs(x, plan).sum().backward()
    assert x.grad[0, :4].tolist() == [0.0, 1.0, 1.0, 1.0]
    weight = x.detach().clone().requires_grad_()
    fake_weight(weight, plan, name="w", amax=None).sum().backward()
    assert weight.grad[0, :4].tolist() == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("fmt", ["mxfp4", "mxfp8", "nvfp4", "fp8_row", "fp8_tensor"])
def test_learned_scales_get_the_gradient_of_their_values(fmt):
    plan, layer = scheme(fmt), layer_of(scheme(fmt), learn_scales=True)
    upstream = torch.randn(N, K, generator=torch.Generator().manual_seed(3))
    values = fake_weight(layer.weight, plan, name="w", amax=None, log2_scale=layer.log2_scale)
    values.backward(upstream)
    moved = np.log(2) * upstream * (values - layer.weight).detach()
    expected = moved.view(*layer.log2_scale.shape, -1).sum(-1)
    torch.testing.assert_close(layer.log2_scale.grad, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fmt", ["mxfp4", "nvfp4", "fp8_row"])
def test_learned_scales_move_the_codes(fmt):
    layer = layer_of(scheme(fmt), learn_scales=True)
    before = layer.quantized()
    with torch.no_grad():
        layer.log2_scale.sub_(1)
    after = layer.quantized()
    assert not torch.equal(before.codes.view(torch.uint8), after.codes.view(torch.uint8))
    assert torch.equal(layer(inputs()).detach(), layer(inputs()).detach())


@ALL
def test_a_layer_that_starts_from_a_quantized_one_is_it(plan):
    """Codes and scales are those of a search, which the rule would not give again."""
    torch.manual_seed(4)
    weight, x = torch.randn(N, K), torch.randn(64, K)
    sums = InputSums(K, name="w")
    sums.add(x)
    given = quantize_calibrated(
        weight, plan, Calibrated(algorithm("mse"), sums, plan), name="w", bias=torch.randn(N)
    )
    layer = layer_of(plan)
    layer.start(given)
    if plan.rotation is None:
        same_bits(layer.quantized(), given)
    else:  # turned forth and back a zero may have the other sign
        assert torch.equal(layer.quantized().dequantize(), given.dequantize())
    other = layer_of(plan, seed=2)
    other.load_state_dict(layer.state_dict())
    same_bits(other.quantized(), layer.quantized())


BRANCHED = pytest.mark.parametrize(
    "text", ["mxfp4+r4", "mxfp4/same+r4", "nvfp4/same+r4", "nvfp4/same+h+r4", "mxfp4/fp8+r4"]
)


def branched(text, seen=True):
    model = Block()
    with torch.no_grad():
        model.q_proj.weight.div_(1 + torch.arange(K))
    prepare_qat(model, text)
    for layer in model.modules() if seen else ():
        if isinstance(layer, FakeQuantizedLinear):
            layer(inputs())
    return model


@BRANCHED
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_beside_a_branch_forward_is_what_the_runtime_computes(text, dtype):
    """But for the order of sums, after which what is between the factors may round another way."""
    model, x = branched(text), inputs().to(dtype)
    for name in ("q_proj", "k_proj", "o_proj"):
        layer = getattr(model, name)
        found, made = layer(x).detach().view(-1, N), layer.quantized()
        rows = x.view(-1, K)
        inner = rows.to(torch.bfloat16).float() @ made.lora_a.float().T
        steps = 2.0**-8 if dtype == torch.float32 else 2.0**-6
        branch = (inner.abs() @ made.lora_b.float().abs().T) * steps
        beside = made.without_branch.apply(rows).float().abs()
        error = (found.float() - made.apply(rows).float()).abs()
        assert (error <= branch + beside * (1e-5 if dtype == torch.float32 else 2.0**-7)).all()
        assert made.scheme == scheme(text)


@BRANCHED
def test_a_branch_and_what_is_beside_it_are_the_weight_at_first(text):
    plain, model = Block(), branched(text)
    for name, layer in quantized_layers(model).items():
        weight = getattr(plain, name).weight.detach()
        if name == "q_proj":
            weight = weight / (1 + torch.arange(K))
        lost = (layer.dequantize() - weight).norm()
        assert lost < 0.2 * weight.norm()
        latent = model.get_submodule(name).weight
        rest = weight - layer.lora_b.float() @ layer.lora_a.float()
        torch.testing.assert_close(latent, rest)


@BRANCHED
def test_fused_layers_share_the_first_factor_and_train_all(text):
    model = branched(text)
    names = [name for name, _ in model.named_parameters() if name.endswith("lora_a")]
    assert names == ["q_proj.lora_a", "o_proj.lora_a", "gate_proj.lora_a"]
    parts = [model.q_proj, model.k_proj, model.v_proj]
    sum(part(inputs()).square().sum() for part in parts).backward()
    for trained in (*parts, model.q_proj.lora_a, *(part.lora_b for part in parts)):
        weight = trained.weight if isinstance(trained, nn.Module) else trained
        assert float(weight.grad.abs().sum()) > 0
    layers = quantized_layers(copy.deepcopy(model))
    for name, layer in quantized_layers(model).items():
        same_bits(layers[name], layer)
    whole = concatenate([layers[name] for name in ("q_proj", "k_proj", "v_proj")])
    assert torch.equal(whole.lora_a, layers["q_proj"].lora_a)


def test_a_branch_gets_the_gradient_of_what_it_computes():
    model, x = branched("mxfp4+r4"), inputs()
    rows, layer = x.view(-1, K).to(torch.bfloat16).float(), model.o_proj
    upstream = torch.randn(2, TOKENS, N, generator=torch.Generator().manual_seed(2))
    layer(x).backward(upstream)
    made, sums = layer.quantized(), upstream.view(-1, N)
    inner = (rows @ made.lora_a.float().T).to(torch.bfloat16).float()
    torch.testing.assert_close(layer.lora_b.grad, sums.T @ inner, rtol=1e-3, atol=1e-3)
    expected = (sums @ made.lora_b.float()).T @ rows
    torch.testing.assert_close(layer.lora_a.grad, expected, rtol=1e-3, atol=1e-3)


def test_static_scales_of_inputs_follow_the_largest_in_training():
    layer = branched("nvfp4/same+r4", seen=False).o_proj
    with pytest.raises(ConfigError, match="has seen no inputs") as caught:
        layer.quantized()
    assert caught.value.where == "o_proj"
    x = inputs()
    with torch.no_grad():
        layer(x)
    first = layer.quantized().input_scale
    assert first == pytest.approx(float(x.abs().max()) / (448 * 6), rel=1e-6)
    with torch.no_grad():
        layer(2 * x)  # what is held out moves nothing
    assert layer.quantized().input_scale == first
    layer(2 * x)
    layer(x)
    assert layer.quantized().input_scale == pytest.approx(2 * first, rel=1e-6)


def test_a_layer_does_not_start_from_another_format():
    layer = layer_of(scheme("mxfp4"))
    with pytest.raises(ConfigError, match="is nvfp4, not mxfp4") as caught:
        layer.start(quantize_weight(torch.randn(N, K), scheme("nvfp4"), name="w"))
    assert caught.value.where == "w"


class Block(nn.Module):
    """A module with the projections that engines fuse, and others."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        for i, name in enumerate(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj")):
            setattr(self, name, nn.Linear(K, N, bias=False))
            getattr(self, name).weight.data *= 3.0**i
        self.lm_head = nn.Linear(K, N)


@pytest.mark.parametrize("text", ["nvfp4", "nvfp4+h", "mxfp4"])
def test_fused_projections_share_what_the_exporter_wants_shared(text):
    model = prepare_qat(Block(), text)
    parts = [model.q_proj, model.k_proj, model.v_proj]
    amax = common_amax([part.weight.detach() for part in parts], scheme(text))
    layers = quantized_layers(model)
    assert sorted(layers) == ["gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    for name in ("q_proj", "k_proj", "v_proj"):
        weight = getattr(model, name).weight
        same_bits(layers[name], quantize_weight(weight, scheme(text), name="w", amax=amax))
    same_bits(layers["o_proj"], quantize_weight(model.o_proj.weight, scheme(text), name="w"))
    whole = concatenate([layers[name] for name in ("q_proj", "k_proj", "v_proj")])
    for part, name in zip(split(whole, [N] * 3), ("q_proj", "k_proj", "v_proj"), strict=True):
        same_bits(part, layers[name])
    if text != "mxfp4":
        assert len(whole.row_scale.unique()) == 1


def test_parameters_stay_the_same_objects_under_the_same_names():
    model = Block()
    before = dict(model.named_parameters())
    after = dict(prepare_qat(model, "mxfp4").named_parameters())
    assert before.keys() == after.keys()
    assert all(after[name] is parameter for name, parameter in before.items())
    assert type(model.lm_head) is nn.Linear


def test_a_copy_fuses_its_own_projections():
    model = prepare_qat(Block(), "nvfp4")
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.v_proj.weight.mul_(100)
    assert other.q_proj.fused[2] is other.v_proj
    assert float(model.q_proj.quantized().row_scale[0]) < float(
        other.q_proj.quantized().row_scale[0]
    )


def test_training_lowers_the_error_of_a_rounded_layer():
    torch.manual_seed(0)
    target = nn.Linear(K, N, bias=False)
    x = torch.randn(256, 8) @ torch.randn(8, K)  # inputs that hang together can make up for errors
    model = prepare_qat(nn.Sequential(copy.deepcopy(target)), "mxfp4")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(60):
        loss = (model(x) - target(x).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_what_cannot_be_prepared_is_named_and_left_as_it_was():
    model = nn.Sequential(nn.Linear(64, 8), nn.Linear(40, 8))
    with pytest.raises(ShapeError, match="blocks of 32") as caught:
        prepare_qat(model, "mxfp4")
    assert caught.value.where == "1"
    assert all(type(layer) is nn.Linear for layer in model)
    with pytest.raises(ConfigError, match="no linear layer"):
        prepare_qat(nn.Sequential(nn.Embedding(3, 3)), "mxfp4")
    with pytest.raises(ConfigError, match="nothing to train"):
        prepare_qat(model, "bf16")
    with pytest.raises(ConfigError, match="no layer in training"):
        quantized_layers(model)


def test_a_weight_that_diverged_is_named():
    layer = layer_of(scheme("mxfp4"))
    with torch.no_grad():
        layer.weight[3, 4] = float("nan")
    with pytest.raises(CheckpointError, match=r"element \[3, 4\] is nan") as caught:
        layer(inputs())
    assert caught.value.where == "w"


def test_a_branch_that_diverged_is_named():
    model = branched("mxfp4+r4")
    with torch.no_grad():
        model.q_proj.lora_a[0, 3] = float("inf")
    with pytest.raises(CheckpointError, match="is not finite") as caught:
        quantized_layers(model)
    assert caught.value.where == "q_proj.lora_a"


def test_scales_of_several_rows_are_refused():
    model = nn.Sequential(nn.Linear(128, 128))
    with pytest.raises(FormatError) as raised:
        prepare_qat(model, "fp8_block/same")
    assert raised.value.hint == "use fp8_row"
    assert type(model[0]) is nn.Linear


def test_a_weight_elsewhere_is_named():
    with pytest.raises(UnsupportedError, match="is on meta") as caught:
        layer_of(scheme("mxfp4")).to("meta")(inputs().to("meta"))
    assert caught.value.where == "w"
