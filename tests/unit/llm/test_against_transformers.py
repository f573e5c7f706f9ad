"""Logits and greedy text equal those of transformers, for random models of each family."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch

from asterope.llm import Sampling, evaluate, generate, load_model

SMALL = {
    "vocab_size": 101, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32,
    "mscale": 0.7, "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1,
}  # fmt: skip
LATENT = {
    "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 24,
    "moe_intermediate_size": 40, "n_routed_experts": 8, "num_experts_per_tok": 3,
    "first_k_dense_replace": 1, "n_shared_experts": 2, "q_lora_rank": 20,
    "num_key_value_heads": 6, "n_group": 4, "topk_group": 2,
}  # fmt: skip
CASES = {
    "llama": ("Llama", {}),
    "llama tied, biases, head_dim": (
        "Llama",
        {
            "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 10,
        },
    ),
    "llama3 rope": ("Llama", {"rope_parameters": LLAMA3}),
    "llama linear rope": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "qwen2 tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2 window": (
        "Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    ),
    "qwen3": ("Qwen3", {"head_dim": 16, "num_key_value_heads": 1, "num_attention_heads": 4}),
    "qwen3 tied, bias": (
        "Qwen3", {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True}
    ),
    "mistral window": ("Mistral", {"sliding_window": 7}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3 experts": (
        "Qwen3Moe",
        {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "head_dim": 16},
    ),
    "qwen3 experts, shares that add up": (
        "Qwen3Moe",
        {
            "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 40,
            "norm_topk_prob": True, "tie_word_embeddings": True, "head_dim": 8,
        },
    ),
    "gpt-oss": (
        "GptOss",
        {
            "num_local_experts": 6, "num_experts_per_tok": 3, "head_dim": 16, "sliding_window": 8,
            "swiglu_limit": 1.5,
            "rope_parameters": {
                "rope_type": "yarn", "rope_theta": 150000.0, "factor": 4.0, "truncate": False,
                "original_max_position_embeddings": 32, "beta_fast": 32.0, "beta_slow": 1.0,
            },
        },
    ),
    "olmoe": ("Olmoe", {"num_experts": 6, "num_experts_per_tok": 3}),
    "olmoe, shares that add up": (
        "Olmoe",
        {
            "num_experts": 5, "num_experts_per_tok": 2, "norm_topk_prob": True,
            "attention_bias": True, "num_key_value_heads": 6,
        },
    ),
    "qwen2 experts": (
        "Qwen2Moe",
        {
            "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 56,
        },
    ),
    "qwen2 experts, layers without, window": (
        "Qwen2Moe",
        {
            "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 40,
            "shared_expert_intermediate_size": 24, "norm_topk_prob": True, "num_hidden_layers": 4,
            "decoder_sparse_step": 2, "mlp_only_layers": [1], "use_sliding_window": True,
            "sliding_window": 8,
        },
    ),
    "deepseek v3": ("DeepseekV3", {**LATENT, "routed_scaling_factor": 2.5}),
    "deepseek v3, yarn, other pairs, one group": (
        "DeepseekV3",
        {
            **LATENT, "rope_parameters": YARN, "rope_interleave": False, "n_group": 1,
            "topk_group": 1, "norm_topk_prob": False,
        },
    ),
    "deepseek v2": (
        "DeepseekV2",
        {**LATENT, "topk_method": "group_limited_greedy", "routed_scaling_factor": 3.0},
    ),
    "deepseek v2, yarn, queries without latents": (
        "DeepseekV2", {**LATENT, "q_lora_rank": None, "rope_parameters": YARN}
    ),
    "qwen3, yarn": ("Qwen3", {"head_dim": 16, "rope_parameters": {**YARN, "mscale": 1.0}}),
    "mistral tied": (
        "Mistral", {"sliding_window": None, "rope_theta": 1e6, "tie_word_embeddings": True}
    ),
}  # fmt: skip
# As the third of experts, and others that differ in one thing each.
RARELY = (
    "deepseek v3", "deepseek v3, yarn, other pairs, one group", "qwen3, yarn",
    "deepseek v2, yarn, queries without latents",
    "olmoe, shares that add up", "qwen2 experts", "deepseek v2", "gpt-oss",
    "mixtral", "qwen3 experts", "llama", "llama linear rope", "qwen2 tied", "qwen3 tied, bias",
)  # fmt: skip
OFTEN = ("llama3 rope", "mistral window")
TOKENS = torch.randint(3, 101, (2, 40), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="session")
def transformers():
    """Import transformers, which is slow and warns about its own dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers as module
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        return module


@pytest.fixture(scope="session")
def models(transformers, tmp_path_factory):
    """Make a model when it is first asked for: the reference, and its checkpoint's directory."""

    @functools.cache
    def make(name):
        family, changes = CASES[name]
        torch.manual_seed(list(CASES).index(name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = getattr(transformers, f"{family}Config")(**{**SMALL, **changes})
            reference = getattr(transformers, f"{family}ForCausalLM")(config).eval()
            with torch.no_grad():
                for parameter in reference.parameters():
                    if parameter.dim() == 1:  # norms are ones and others zeros at first
                        parameter.add_(0.2 * torch.randn_like(parameter))
                for field, tensor in reference.state_dict().items():
                    if field.endswith(("mlp.gate.weight", "correction_bias", "proj_bias")):
                        tensor.copy_(0.3 * torch.randn_like(tensor))
            directory = tmp_path_factory.mktemp("checkpoint")
            reference.save_pretrained(directory)
        return reference, directory

    ours = load_model(make("llama")[1])
    ours.forward(TOKENS, ours.new_cache(2, 40))  # compiles what most models share
    return make


def reference_logits(model, tokens=TOKENS):
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model(tokens).logits


def assert_same_logits(got, expected):
    assert got.dtype == torch.float32
    assert expected.abs().max() > 0.5  # or the comparison says nothing
    assert float((got - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in RARELY else n for n in CASES]
)
def test_logits_are_those_of_transformers(models, name):
    reference, directory = models(name)
    model = load_model(directory)
    expected = reference_logits(reference)
    assert_same_logits(model.forward(TOKENS, model.new_cache(2, 40)), expected)
    cache, parts = model.new_cache(2, 64), []
    chunked = ((0, 24), (24, 39), (39, 40))
    for start, end in chunked if name in OFTEN else ((0, 39), (39, 40)):
        parts.append(model.forward(TOKENS[:, start:end], cache))
    assert_same_logits(torch.cat(parts, 1), expected)


def test_only_the_last_logits_are_computed_where_only_they_are_asked_for(models):
    reference, directory = models("llama")
    model = load_model(directory)
    last = model.forward(TOKENS, model.new_cache(2, 128), last_only=True)
    assert_same_logits(last, reference_logits(reference)[:, -1:])


@pytest.mark.parametrize(
    "name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_greedy_text_is_that_of_transformers(models, name):
    reference, directory = models(name)
    model = load_model(directory)
    for seed in range(2):
        prompt = TOKENS[seed, :24].tolist()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = reference.generate(
                torch.tensor([prompt]), max_new_tokens=25, do_sample=False, pad_token_id=0
            )
        expected = out[0, len(prompt) :].tolist()
        if expected and expected[-1] == 2:  # transformers keeps the end token
            expected.pop()
        assert list(generate(model, prompt, max_new_tokens=25)) == expected


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [("bfloat16", 0.25), pytest.param("float16", 0.04, marks=pytest.mark.slow)],
)
def test_half_precision_is_near(models, dtype, limit):
    reference, directory = models("llama")
    model = load_model(directory, dtype=dtype)
    assert model.dtype == getattr(torch, dtype)
    got = model.forward(TOKENS, model.new_cache(2, 40))
    assert got.dtype == torch.float32
    error = (got - reference_logits(reference)).abs()
    assert float(error.max()) < limit * float(reference_logits(reference).abs().max())


def negative_log_likelihood(reference, tokens, context):
    """Score each token in the first window that it lies in, windows half a context apart."""
    starts, at = [], 0
    while not starts or starts[-1] + context < len(tokens):
        starts.append(min(at, len(tokens) - context))
        at += context // 2
    total = 0.0
    scored = set()
    for start in starts:
        window = torch.tensor([tokens[start : start + context]])
        logs = reference_logits(reference, window).double().log_softmax(-1)[0]
        for i in range(1, context):
            if start + i not in scored:
                scored.add(start + i)
                total -= float(logs[i - 1, tokens[start + i]])
    assert scored == set(range(1, len(tokens)))
    return total / len(scored)


@pytest.mark.parametrize(
    ("length", "context"), [(60, 40), (41, 40), pytest.param(100, 16, marks=pytest.mark.slow)]
)
def test_perplexity_is_that_of_transformers_on_the_same_windows(models, length, context):
    reference, directory = models("llama")
    tokens = torch.randint(3, 101, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    quality, _ = evaluate(load_model(directory), {}, tokens, context=context)
    nll = negative_log_likelihood(reference, tokens, min(context, length))
    assert quality.num_tokens == length - 1
    assert quality.perplexity == pytest.approx(float(torch.tensor(nll).exp()), rel=1e-4)


def test_divergence_and_agreement_are_those_of_the_distributions(models):
    (a, a_directory), (b, b_directory) = models("llama"), models("llama3 rope")
    tokens = TOKENS[0].tolist()
    mine, others = evaluate(
        load_model(a_directory), {"b": load_model(b_directory)}, tokens, context=40
    )
    logs = [reference_logits(m, TOKENS[:1]).double().log_softmax(-1)[0, :-1] for m in (a, b)]
    kl = (logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean()
    agreement = (logs[0].argmax(-1) == logs[1].argmax(-1)).double().mean()
    assert others["b"].kl == pytest.approx(float(kl), rel=1e-4, abs=1e-7)
    assert others["b"].top1_agreement == pytest.approx(float(agreement))
    assert (mine.kl, mine.top1_agreement) == (0.0, 1.0)


def test_sampling_at_temperature_zero_is_greedy(models):
    _, directory = models("llama")
    model = load_model(directory)
    greedy = list(generate(model, [5, 6, 7], max_new_tokens=10))
    zero = Sampling(temperature=0.0, top_k=3, top_p=0.5, seed=9)
    assert list(generate(model, [5, 6, 7], max_new_tokens=10, sampling=zero)) == greedy
