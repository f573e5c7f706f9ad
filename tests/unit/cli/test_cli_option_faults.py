"""Options that make no sense: the option, the value, the limit, and the nearest name."""

from __future__ import annotations

import pytest

NONSENSE = [
    (["--format", "mxfp5"], "--format: there is no format named 'mxfp5'", "did you mean mxfp"),
    (["--format", "mxfp4/fp9"], "--activations: there is no", "did you mean fp8?"),
    (["--activations", "fp9"], "--activations: there is no", "did you mean fp8?"),
    (["--formats", "mxfp4,nvfp5"], "there is no format named 'nvfp5'", "did you mean nvfp4?"),
    (["--rule", "two_level"], "--rule: scale rule 'two_level' does not apply to mxfp4", "floor"),
    (["--dtype", "int3"], "--dtype: 'int3' is not supported", "bfloat16"),
    (["--chip", "maia300"], "'maia300' is not a built-in chip", "did you mean 'maia200'?"),
    (["--compare", "h200,b201"], "'b201' is not a built-in chip", "did you mean 'b200'?"),
    (["--chip", "h200", "--fidelity", "tile"], "the inside of h200 is not public", "roofline"),
    (["--fidelity", "cycle"], "--fidelity: there is no 'cycle'", "tile or operator or roofline"),
    (["--batch", "0"], "--batch: 0 is outside 1..", "--help"),
    (["--batch", "-3"], "--batch: -3 is outside 1..", "--help"),
    (["--batch", "many"], "'--batch'", "--help"),
    (["--prefill-batch", "0"], "--prefill-batch: 0 is outside 1..", "--help"),
    (["--context", "1"], "--context: 1 is outside 2..128", "max_position_embeddings"),
    (["--context", "129"], "--context: 129 is outside 2..128", "max_position_embeddings"),
    (["--price", "cheap"], "--price: 'cheap' is not a price", "1.95"),
    (["--price", "-1"], "--price: -1.0 is not from", "--help"),
    (["--price", "nan"], "--price: nan is not from", "--help"),
    (["--price", "h201=2"], "'h201' is not a built-in chip", "did you mean 'h200'?"),
    (["--basis", "guess"], "--basis: 'guess' is not a price basis", "tco_hyperscaler"),
    (["--pue", "0.9"], "--pue: 0.9 is not from 1 to 5", "facility"),
    (["--utilisation", "60"], "--utilisation: 60.0 is not from 0.001 to 1", "0.6, not 60"),
    (["--usd-per-kwh", "-1"], "--usd-per-kwh: -1.0 is not from 0", "--help"),
    (["--electricity-extra"], "--electricity-extra: needs --price", "--help"),
    (["--max-text-tokens", "1"], "--max-text-tokens: 1 is outside 2..", "--help"),
    (["--max-new-tokens", "-1"], "--max-new-tokens: -1 is outside 0..", "--help"),
    (["--text", "no.txt"], "no.txt: cannot be read: No such file", "--help"),
    (["--hurry"], "No such option: --hurry", "asterope run --help"),
]


@pytest.mark.parametrize(("options", "reason", "hint"), NONSENSE, ids=lambda x: " ".join(x)[:40])
def test_run_refuses_an_option_and_writes_nothing(
    options, reason, hint, asterope, checkpoint, tmp_path
):
    message = asterope("run", checkpoint, *options).error
    first, last = message.splitlines()
    assert reason in first
    assert hint in last
    assert list(tmp_path.iterdir()) == []


OTHERS = [
    (["cost"], "give either a model or --tokens-per-s", "asterope cost llama-3.1-70b"),
    (["cost", "qwen3-8b", "--tokens-per-s", "9"], "either a model or", "asterope cost"),
    (["cost", "--tokens-per-s", "0"], "--tokens-per-s: 0.0 is not from", ""),
    (["cost", "--tokens-per-s", "nan"], "--tokens-per-s: nan is not from", ""),
    (["cost", "--tokens-per-s", "9", "--power-w", "-3"], "--power-w: -3.0 is not from", ""),
    (["cost", "--tokens-per-s", "9", "--chip", "mi355y"], "'mi355y' is not", "'mi355x'?"),
    (["cost", "llama-3.1-71b"], "'llama-3.1-71b' is not a published", "'llama-3.1-70b'?"),
    (["cost", "qwen3-8b", "--context", "99999"], "--context: 99999 is outside 2..40960", ""),
    (["cost", "qwen3-8b", "--format", "fp3"], "--format: there is no format named 'fp3'", ""),
    (["simulate", "no/such/place"], "no/such/place: there is no such", "`asterope models`"),
    (["simulate", "deepseek-v3.2"], "architecture 'deepseek_v32'", "llama"),
    (["simulate", "qwen3-8b", "--phase", "all"], "--phase: there is no 'all'", "decode"),
    (["chips", "show", "maia20"], "'maia20' is not a built-in chip", "'maia200'?"),
    (["chips", "show", "maia200:fast"], "'fast'", "bench"),
    (["chips", "show", "no.toml"], "no.toml: cannot be read", ""),
    (["chips", "list"], "No such command 'list'", "asterope chips --help"),
    (["rum"], "No such command 'rum'", "asterope --help"),
]


@pytest.mark.parametrize(("args", "reason", "hint"), OTHERS, ids=lambda x: " ".join(x)[:40])
def test_other_commands_refuse_nonsense_in_one_line(args, reason, hint, asterope):
    first, last = asterope(*args).error.splitlines()
    assert reason in first
    assert hint in last


SAMPLING = [
    (["--temperature", "-1"], "--temperature: -1.0"),
    (["--temperature", "nan"], "--temperature: nan"),
    (["--top-p", "0"], "--top-p: 0.0 is outside"),
    (["--top-k", "-2"], "--top-k: -2"),
    (["--seed", "-1"], "--seed: -1 is outside"),
    (["--max-new-tokens", "0"], "'--max-new-tokens'"),
    (["--format", "fp5"], "--format: there is no format named 'fp5'"),
]


@pytest.mark.parametrize(("options", "reason"), SAMPLING, ids=lambda x: " ".join(x)[:40])
def test_generate_refuses_nonsense_before_it_loads(options, reason, asterope):
    assert reason in asterope("generate", "no-such-model", "x", *options).error


def test_a_prompt_longer_than_the_context_is_refused(asterope, checkpoint):
    assert "128 tokens" in asterope("generate", checkpoint, "x" * 128).error


def test_an_empty_prompt_is_refused(asterope, checkpoint):
    assert "0 tokens" in asterope("generate", checkpoint, "").error


def test_a_text_of_one_token_is_refused(asterope, checkpoint, tmp_path):
    (tmp_path / "one.txt").write_text("x")
    assert (
        "one.txt: 1 tokens are too few" in asterope("eval", checkpoint, "--text", "one.txt").error
    )


def test_a_text_that_is_not_utf8_is_refused(asterope, checkpoint, tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait")
    assert (
        "latin.txt: cannot be read: is not UTF-8"
        in asterope("eval", checkpoint, "--text", "latin.txt").error
    )


def test_a_what_if_chip_that_contradicts_itself_names_the_field(asterope, tmp_path):
    text = asterope("chips", "show", "maia200").out
    (tmp_path / "mine.toml").write_text(text.replace("value = 7e12", "value = -7e12"))
    message = asterope("cost", "--tokens-per-s", "9", "--chip", "mine.toml").error
    assert "hbm.bandwidth_bytes_per_s" in message
