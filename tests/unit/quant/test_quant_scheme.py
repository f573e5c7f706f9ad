"""Schemes: what people may write, what is recorded, and what is refused."""

import itertools

import pytest

from asterope import quant
from asterope.errors import FormatError, ShapeError
from asterope.formats import BLOCKS
from asterope.quant import ACTIVATIONS, WEIGHT_FORMATS, Scheme, scheme


def test_door_is_sorted_and_complete():
    names = quant.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(quant, name) for name in names)


@pytest.mark.parametrize("weights", WEIGHT_FORMATS)
def test_rule_left_out_is_recorded_as_the_default_of_the_format(weights):
    assert Scheme(weights=weights).rule == BLOCKS[weights].default_rule
    assert Scheme(weights=weights) == Scheme(weights=weights, rule=BLOCKS[weights].default_rule)


@pytest.mark.parametrize(
    ("weights", "activations"),
    [("none", "bf16"), *itertools.product(WEIGHT_FORMATS, ACTIVATIONS)],
)
def test_name_is_read_back(weights, activations):
    made = Scheme(weights=weights, activations=activations)
    assert scheme(made.name) == made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mxfp4", Scheme(weights="mxfp4")),
        (" MXFP4 ", Scheme(weights="mxfp4", activations="bf16")),
        ("fp8", Scheme(weights="fp8_row")),
        ("FP8-tensor", Scheme(weights="fp8_tensor")),
        ("bf16", Scheme(weights="none")),
        ("none", Scheme(weights="none")),
        ("NVFP4A16", Scheme(weights="nvfp4")),
        ("mxfp4-a16", Scheme(weights="mxfp4")),
        ("mxfp4/fp8", Scheme(weights="mxfp4", activations="fp8")),
        ("mxfp4/same", Scheme(weights="mxfp4", activations="same")),
        ("mxfp8/mxfp8", Scheme(weights="mxfp8", activations="same")),
        ("fp8/same", Scheme(weights="fp8_row", activations="fp8")),
        ("mxfp6/bf16", Scheme(weights="mxfp6")),
        ("mxfp4_e1m2/a16", Scheme(weights="mxfp4_e1m2")),
        ("mxfp4/same+r8", Scheme(weights="mxfp4", activations="same", rank=8)),
        ("nvfp4+R16+h", Scheme(weights="nvfp4", rotation=16, rank=16)),
    ],
)
def test_scheme_is_read_as_people_write_it(text, expected):
    assert scheme(text) == expected


def test_activations_and_rule_beside_the_text_are_taken():
    made = scheme("mxfp4", activations="FP8", rule="Floor")
    assert made == Scheme(weights="mxfp4", activations="fp8", rule="floor")
    assert scheme("mxfp4/fp8", activations="fp8").activations == "fp8"


def test_same_activations_beside_fp8_weights_are_fp8():
    assert Scheme(weights="fp8_tensor", activations="same").activations == "fp8"


@pytest.mark.parametrize(
    ("weights", "activations", "rule", "words"),
    [
        ("mxfp4", "bf16", None, "mxfp4 weights, bf16 activations"),
        ("mxfp4", "same", "floor", "mxfp4 weights (scale rule floor), mxfp4 activations"),
        ("fp8_row", "same", None, "fp8_row weights, fp8 activations"),
        ("none", "bf16", None, "unquantized"),
    ],
)
def test_description_names_both_formats(weights, activations, rule, words):
    assert Scheme(weights=weights, activations=activations, rule=rule).describe() == words


@pytest.mark.parametrize(
    ("text", "options", "where", "what", "hint"),
    [
        ("mxpf4", {}, "weights", "no format named 'mxpf4'", "did you mean mxfp4?"),
        ("int4", {}, "weights", "no format named 'int4'", "fp8_tensor, fp8_row"),
        ("mxfp4/fp9", {}, "activations", "no activation format named 'fp9'", "did you mean fp8?"),
        ("mxfp4/mxfp8", {}, "activations", "named 'mxfp8'", "bf16, fp8, same"),
        ("mxfp4", {"activations": "sam"}, "activations", "named 'sam'", "did you mean same?"),
        ("mxfp4/fp8", {"activations": "same"}, "activations", "fp8 in 'mxfp4/fp8' and same", ""),
        ("mxfp4/", {}, "'mxfp4/'", "no activations after the slash", ""),
        ("mxfp4", {"rule": "ceil"}, "rule", "'ceil' does not apply to mxfp4", "even or floor"),
        ("nvfp4", {"rule": "floor"}, "rule", "does not apply to nvfp4", "two_level or amax"),
        ("none/fp8", {}, "activations", "fp8 needs quantized weights", "mxfp4"),
        ("bf16", {"rule": "floor"}, "rule", "floor needs quantized weights", "mxfp4"),
        ("bf16+r8", {}, "rank", "8 needs quantized weights", "mxfp4"),
        ("mxfp4+r0", {}, "rank", "0 is outside 1..1024", ""),
        ("mxfp4+r8+r4", {}, "rank", "is said twice", ""),
        ("mxfp4+x8", {}, "rotation", "neither a rotation nor a rank", "+r32"),
        ("mxfp4+r" + "9" * 5000, {}, "rotation", "neither a rotation nor a rank", "+r32"),
    ],
    ids=range(16),
)
def test_wrong_scheme_names_the_field_and_what_would_do(text, options, where, what, hint):
    with pytest.raises(FormatError) as caught:
        scheme(text, **options)
    assert caught.value.where == where
    assert what in caught.value.what
    assert hint in caught.value.hint


@pytest.mark.parametrize(("weights", "block"), [("mxfp4", 32), ("mxfp6", 32), ("nvfp4", 16)])
def test_block_that_does_not_divide_names_tensor_size_and_block(weights, block):
    name = "model.layers.3.mlp.down_proj.weight"
    Scheme(weights=weights).check_shape((8, 2 * block), name)
    with pytest.raises(ShapeError) as caught:
        Scheme(weights=weights).check_shape((8, 2 * block + 8), name)
    assert caught.value.where == name
    assert f"blocks of {block} ({weights})" in caught.value.what
    assert f"K = {2 * block + 8} of shape [8, {2 * block + 8}]" in caught.value.what
    assert "fp8_row" in caught.value.hint


@pytest.mark.parametrize("weights", ["none", "fp8_tensor", "fp8_row"])
def test_formats_without_blocks_take_any_width(weights):
    Scheme(weights=weights).check_shape((3, 5), "w")


@pytest.mark.parametrize("shape", [(4,), (2, 4, 32), (0, 32), (4, 0)])
def test_weight_without_two_filled_axes_is_refused(shape):
    with pytest.raises(ShapeError, match="is not that of a linear layer's weight") as caught:
        Scheme(weights="mxfp4").check_shape(shape, "w")
    assert caught.value.where == "w"
