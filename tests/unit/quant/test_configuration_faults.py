"""Configurations and layers of every tool, changed at random: understood, or refused by us."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope.errors import AsteropeError, CheckpointError, UnsupportedError
from asterope.quant import Layout, Scheme, quantization_config, read_layout
from foreign_checkpoints import FOREIGN, TORCHAO
from foreign_weights import mx, swizzled

CONFIGS = {
    **{name: foreign.config for name, foreign in FOREIGN.items()},
    **{
        f"compressed-{plan.name}": quantization_config(plan, ["lm_head"])
        for plan in (
            Scheme(weights="nvfp4", activations="same"),
            Scheme(weights="fp8_block128", activations="same"),
            Scheme(weights="mxfp4", activations="fp8", rotation=32),
        )
    },
    "torchao": TORCHAO,
}
# Records of who wrote it, how a kernel is run, and what is asterope's own.
FREE = ("producer", "kernel_preference", "asterope")
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 200), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=4,
)


def places(value, path=()):
    """Every place in a configuration: a tuple of keys and positions."""
    yield path
    inner = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list) else inner:
        yield from places(item, (*path, key))


def at(config, path):
    for key in path:
        config = config[key]
    return config


@pytest.mark.parametrize("name", CONFIGS)
def test_a_field_more_is_never_ignored(name):
    for path in places(CONFIGS[name]):
        changed = copy.deepcopy(CONFIGS[name])
        found = at(changed, path)
        if not isinstance(found, dict) or any(free in path for free in FREE):
            continue
        found["later"] = {"scale": 2}
        with pytest.raises((UnsupportedError, CheckpointError)):
            read_layout(changed)


DTYPES = [torch.uint8, torch.int32, torch.float32, torch.bfloat16, torch.float8_e4m3fn]
SHAPES = st.lists(st.sampled_from([0, 1, 2, 16, 64, 128]), max_size=2) | st.just([2, 2, 2])


def torchao_layer():
    codes, scales, _ = mx(np.random.default_rng(0), 64, 128, element="e2m1")
    tiled = torch.from_numpy(swizzled(scales.numpy()))
    return {"_weight_qdata": codes, "_weight_scale": tiled}


LAYERS = {
    **{
        name: (foreign.config, foreign.layer(np.random.default_rng(0), 64, 128)[0])
        for name, foreign in FOREIGN.items()
    },
    "modelopt-coarse": (
        {"quant_method": "modelopt", "quant_algo": "W4A8_NVFP4_FP8"},
        FOREIGN["modelopt-nvfp4"].layer(np.random.default_rng(0), 64, 128)[0],
    ),
    "torchao": (TORCHAO, torchao_layer()),
}
METADATA = {
    "w.weight": '{"_type": "MXTensor", "_data": {"block_size": 32, "is_swizzled_scales": 1}}'
}


@pytest.mark.parametrize("name", LAYERS)
@settings(deadline=None)
@given(data=st.data())
def test_another_tensor_is_understood_or_an_error_that_names_it(name, data):
    config, layer = LAYERS[name]
    stored = {f"w.{key}": tensor for key, tensor in layer.items()}
    read_layout(config).layer("w", stored, METADATA)
    key = data.draw(st.sampled_from(sorted(stored)))
    shape, dtype = data.draw(SHAPES), data.draw(st.sampled_from(DTYPES))
    stored[key] = torch.full(shape, data.draw(st.sampled_from([0, 1, 127]))).to(dtype)
    try:
        read_layout(config).layer("w", stored, METADATA)
    except AsteropeError as error:
        assert error.where.startswith("w.")


@pytest.mark.parametrize("name", CONFIGS)
@settings(deadline=None)
@given(data=st.data())
def test_another_value_is_understood_or_an_error_of_ours(name, data):
    changed = copy.deepcopy(CONFIGS[name])
    path = data.draw(st.sampled_from([path for path in places(changed) if path]))
    at(changed, path[:-1])[path[-1]] = data.draw(VALUES)
    try:
        found = read_layout(changed)
    except AsteropeError as error:
        assert error.where.startswith("quantization_config")
        return
    assert isinstance(found, Layout)
