"""Perplexity, divergence and agreement: laws, and errors that name the input."""

from __future__ import annotations

import math

import pytest
import torch

from asterope.errors import ConfigError
from asterope.llm import Quality, evaluate, load_model
from asterope.quant import scheme
from llm_checkpoints import raw_config, tensors_of, write_checkpoint

RAW = raw_config(hidden_size=64, intermediate_size=96, num_attention_heads=4)
TOKENS = torch.randint(3, 101, (90,), generator=torch.Generator().manual_seed(7)).tolist()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model"), RAW)


@pytest.fixture(scope="module")
def model(directory):
    return load_model(directory)


def quantized(directory, name):
    return load_model(directory, scheme=scheme(name))


def test_a_model_differs_from_itself_by_nothing(directory, model):
    mine, others = evaluate(model, {"same": load_model(directory)}, TOKENS, context=32)
    assert others["same"] == mine
    assert (mine.kl, mine.top1_agreement, mine.num_tokens) == (0.0, 1.0, 89)


def test_quality_falls_with_the_bits(directory, model):
    names = ("mxfp8", "mxfp6", "mxfp4")
    _, others = evaluate(model, {n: quantized(directory, n) for n in names}, TOKENS, context=32)
    assert all(q.kl > 0 for q in others.values())
    assert others["mxfp8"].kl < others["mxfp4"].kl
    assert others["mxfp6"].kl < others["mxfp4"].kl
    assert others["mxfp8"].top1_agreement >= others["mxfp4"].top1_agreement
    assert all(0 <= q.top1_agreement <= 1 for q in others.values())


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(tmp_path):
    tensors = tensors_of(RAW)
    tensors["lm_head.weight"].zero_()
    model = load_model(write_checkpoint(tmp_path, RAW, tensors=tensors))
    quality, _ = evaluate(model, {}, TOKENS, context=32)
    assert quality.perplexity == pytest.approx(101, rel=1e-5)


@pytest.mark.parametrize(("length", "context"), [(2, 32), (33, 32), (90, 7)])
def test_each_token_but_the_first_is_scored_once(model, length, context):
    seen = []
    quality, _ = evaluate(
        model, {}, TOKENS[:length], context=context, progress=lambda *at: seen.append(at)
    )
    assert quality.num_tokens == length - 1
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_the_score_is_the_mean_cross_entropy_where_one_window_holds_the_text(model):
    text = torch.tensor([TOKENS[:32]])
    logits = model.forward(text, model.new_cache(1, 32))[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1].double(), text[0, 1:])
    quality, _ = evaluate(model, {}, TOKENS[:32], context=64)
    assert quality.perplexity == pytest.approx(math.exp(loss), rel=1e-6)


def test_batches_of_windows_score_as_one_by_one_do(model):
    generator = torch.Generator().manual_seed(3)
    tokens, context, stride = torch.randint(3, 101, (1100,), generator=generator), 32, 16
    total, scored = 0.0, 1
    for place in range(0, 1100 - stride, stride):
        start = min(place, 1100 - context)
        window = tokens[None, start : start + context]
        logits = model.forward(window, model.new_cache(1, context))[0].double()
        first, scored = scored - start, start + context
        loss = torch.nn.functional.cross_entropy(
            logits[first - 1 : -1], window[0, first:], reduction="sum"
        )
        total += float(loss)
    quality, _ = evaluate(model, {}, tokens.tolist(), context=context)
    assert math.log(quality.perplexity) == pytest.approx(total / 1099, rel=1e-6)


def test_the_order_and_number_of_others_change_nothing(directory, model):
    a, b = (quantized(directory, n) for n in ("mxfp8", "mxfp4"))
    _, both = evaluate(model, {"a": a, "b": b}, TOKENS, context=32)
    _, turned = evaluate(model, {"b": b, "a": a}, TOKENS, context=32)
    _, alone = evaluate(model, {"a": a}, TOKENS, context=32)
    assert both == turned
    assert alone["a"] == both["a"]
    assert isinstance(alone["a"], Quality)


@pytest.mark.parametrize(
    ("tokens", "context", "where", "says"),
    [
        ([], 32, "text", "0 tokens are too few"),
        ([5], 32, "text", "1 tokens are too few"),
        ([5, 6, 7], 1, "context", "1 is below 2"),
        ([5, 6, 101], 32, "text", "token 101 is outside 0..100"),
        ([5, -2], 32, "text", "token -2 is outside"),
    ],
)
def test_a_text_that_cannot_be_scored_is_refused(model, tokens, context, where, says):
    with pytest.raises(ConfigError) as caught:
        evaluate(model, {}, tokens, context=context)
    assert caught.value.where == where
    assert says in caught.value.what
