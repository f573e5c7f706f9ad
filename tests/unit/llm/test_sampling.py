"""Choosing tokens: greedy is the largest, one seed is one text, cuts keep what they say."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from asterope.errors import ConfigError
from asterope.llm import Sampling, generate, load_model, sample
from llm_checkpoints import raw_config, write_checkpoint

VOCAB = 101
PROMPT = [5, 6, 7, 8, 9]


def logits_of(rows=1, seed=0, width=VOCAB):
    """Random logits, no two of a row equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(width, generator=generator) for _ in range(rows)]) * 0.07


def draw(logits, count=4000, seed=0, **options):
    """Choose so many times from one row."""
    generator = torch.Generator().manual_seed(seed)
    return sample(logits.expand(count, -1), Sampling(**options), generator)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(
        write_checkpoint(tmp_path_factory.mktemp("model"), raw_config(eos_token_id=2))
    )


# -- one choice ------------------------------------------------------------------------------------
def test_greedy_is_the_largest():
    logits = logits_of(50)
    for options in ({}, {"top_k": 3, "top_p": 0.2, "seed": 9}):
        chosen = sample(logits, Sampling(**options), torch.Generator())
        assert torch.equal(chosen, logits.argmax(-1))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 2.0, "top_k": 1},
        {"temperature": 2.0, "top_p": 1e-9},
        {"temperature": 1e-4},
        {"temperature": 1e-300},
    ],
)
def test_one_candidate_or_no_warmth_is_greedy(options):
    logits = logits_of(50)
    chosen = sample(logits, Sampling(**options), torch.Generator().manual_seed(1))
    assert torch.equal(chosen, logits.argmax(-1))


def test_one_seed_is_one_choice_and_another_seed_another():
    options = {"temperature": 1.0, "top_k": 50, "top_p": 0.95}
    one, same, other = (draw(logits_of(), 200, seed, **options) for seed in (4, 4, 5))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_come_as_often_as_their_probability_says(temperature):
    logits, count = logits_of(width=12), 20_000
    expected = (logits[0].double() / temperature).softmax(-1)
    found = draw(logits, count, temperature=temperature).bincount(minlength=12) / count
    # Five standard deviations of a binomial share.
    assert ((found - expected).abs() <= 5 * (expected * (1 - expected) / count).sqrt()).all()


@pytest.mark.parametrize("top_k", [1, 2, 7, VOCAB, 10 * VOCAB])
def test_top_k_keeps_the_k_largest(top_k):
    logits = logits_of()
    drawn = set(draw(logits, temperature=5.0, top_k=top_k).tolist())
    assert drawn == set(logits[0].topk(min(top_k, VOCAB)).indices.tolist())


def test_top_k_keeps_k_of_equals():
    assert len(set(draw(torch.zeros(1, 40), temperature=1.0, top_k=3).tolist())) == 3


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9])
def test_top_p_keeps_the_fewest_that_reach_it(top_p):
    logits = logits_of(width=20)
    ordered, order = (logits[0].double() / 2).softmax(-1).sort(descending=True)
    count = int((ordered.cumsum(0) < top_p).sum()) + 1
    drawn = set(draw(logits, 20_000, temperature=2.0, top_p=top_p).tolist())
    assert drawn == set(order[:count].tolist())


def test_top_p_counts_what_top_k_kept():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    # Of the two kept, 4/7 and 3/7, the first alone has half.
    assert set(draw(logits, temperature=1.0, top_k=2, top_p=0.5).tolist()) == {0}
    assert set(draw(logits, temperature=1.0, top_k=2, top_p=0.6).tolist()) == {0, 1}


def test_a_token_that_cannot_be_is_never_chosen():
    logits = torch.tensor([[0.0, -math.inf, 0.0, -math.inf]])
    assert set(draw(logits, temperature=10.0).tolist()) == {0, 2}


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 1 << 63}, "seed"),
    ],
)
def test_an_option_outside_its_limits_is_named_with_its_value(options, where):
    with pytest.raises(ConfigError) as caught:
        Sampling(**options)
    assert caught.value.where == where
    assert str(options[where]) in caught.value.what


# -- a text ----------------------------------------------------------------------------------------
def slow_greedy(model, prompt, count):
    """Choose the largest of the last logits, with no cache kept from token to token."""
    tokens = list(prompt)
    for _ in range(count):
        logits = model.forward(torch.tensor([tokens]), model.new_cache(1, len(tokens)))
        token = int(logits[0, -1].argmax())
        if token in model.config.eos_ids:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


def test_greedy_text_takes_the_largest_each_time(model):
    assert list(generate(model, PROMPT, max_new_tokens=4)) == slow_greedy(model, PROMPT, 4)


def test_one_seed_is_one_text(model):
    texts = {
        (seed, again): tuple(
            generate(model, PROMPT, max_new_tokens=12,
                     sampling=Sampling(temperature=1.5, seed=seed))
        )
        for seed in (1, 2)
        for again in (False, True)
    }  # fmt: skip
    assert texts[1, False] == texts[1, True]
    assert texts[2, False] == texts[2, True]
    assert texts[1, False] != texts[2, False]


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_text_ends_at_its_limit_and_at_that_of_the_context(model, limit):
    sampling = Sampling(temperature=1.0, seed=3)
    assert len(list(generate(model, [5], max_new_tokens=limit, sampling=sampling))) <= limit
    longest = [7] * (model.config.max_context - limit - 1)
    made = list(generate(model, longest, max_new_tokens=50, sampling=sampling))
    assert len(made) <= limit + 1


def test_a_text_ends_before_an_end_token(model):
    free = list(generate(model, PROMPT, max_new_tokens=10))
    end = free[4]
    ended = dataclasses.replace(model, config=dataclasses.replace(model.config, eos_ids=(end,)))
    assert list(generate(ended, PROMPT, max_new_tokens=10)) == free[: free.index(end)]


@pytest.mark.parametrize(
    ("prompt", "limit", "where", "says"),
    [
        ([], 5, "prompt", "a prompt of 0 tokens is outside 1..127"),
        ([1] * 128, 5, "prompt", "a prompt of 128 tokens"),
        ([1, VOCAB], 5, "prompt", f"token {VOCAB} is outside 0..{VOCAB - 1}"),
        ([1, -1], 5, "prompt", "token -1 is outside"),
        ([1], -1, "max_new_tokens", "-1 is below 0"),
    ],
)
def test_a_prompt_that_cannot_be_continued_is_refused(model, prompt, limit, where, says):
    with pytest.raises(ConfigError) as caught:
        list(generate(model, prompt, max_new_tokens=limit))
    assert caught.value.where == where
    assert says in caught.value.what


# -- the cache -------------------------------------------------------------------------------------
def test_a_cache_that_is_full_or_too_long_is_refused(model):
    cache = model.new_cache(1, 6)
    model.forward(torch.tensor([PROMPT]), cache)
    with pytest.raises(ConfigError, match=r"5 \+ 2 tokens exceed the cache's 6"):
        model.forward(torch.tensor([[6, 7]]), cache)
    for capacity in (0, -1, 129):
        with pytest.raises(ConfigError, match=rf"{capacity} tokens are outside 1\.\.128") as caught:
            model.new_cache(1, capacity)
        assert "max_position_embeddings" in caught.value.hint


def test_sequences_of_a_batch_do_not_see_each_other(model):
    tokens = torch.tensor([[3, 4, 5, 6, 7], [9, 8, 7, 6, 5], [50, 51, 52, 53, 54]])
    together = model.forward(tokens, model.new_cache(3, 8))
    for i in range(3):
        alone = model.forward(tokens[i : i + 1], model.new_cache(1, 8))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=2e-5)


def test_later_tokens_change_nothing_before_them(model):
    one = model.forward(torch.tensor([[3, 4, 5, 6, 7]]), model.new_cache(1, 8))
    other = model.forward(torch.tensor([[3, 4, 9, 9, 9]]), model.new_cache(1, 8))
    assert torch.equal(one[:, :2], other[:, :2])
    assert not torch.equal(one[:, 2:], other[:, 2:])
