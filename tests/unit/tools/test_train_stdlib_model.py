from __future__ import annotations

import json
import shutil
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")

TOOLS = Path(__file__).parents[3] / "tools"
STDLIB = Path(sysconfig.get_path("stdlib"))
MODULES = ["bisect.py", "fnmatch.py", "heapq.py", "json/decoder.py", "json/scanner.py", "queue.py"]
HELD_OUT = ["fnmatch.py", "heapq.py"]
TINY = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_layers": 2,
    "context": 32,
    "microbatch": 4,
    "accumulate": 2,
    "warmup": 2,
}


@pytest.fixture(scope="module")
def huggingface() -> ModuleType:
    """Import what the tests use of `transformers`, which takes seconds, outside of their time."""
    transformers = pytest.importorskip("transformers")
    for name in ("AutoModelForCausalLM", "AutoTokenizer", "LlamaForCausalLM"):
        getattr(transformers, name)
    return transformers


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)


@pytest.fixture
def script(tools_on_path: None, huggingface: ModuleType) -> ModuleType:
    import train_stdlib_model

    return train_stdlib_model


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in MODULES:
        target = tmp_path / "lib" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(STDLIB / name, target)
    return tmp_path / "lib"


def arguments(corpus: Path, folder: Path, *more: str) -> list[str]:
    options = {"corpus": corpus, "out": folder / "out", "work": folder / "work", "threads": 1}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (options | TINY).items()]
    return [*flags, *more]


@pytest.mark.slow
def test_a_short_run_learns_and_its_output_loads_in_transformers(
    script, huggingface, corpus, tmp_path, capsys
):
    assert script.main(arguments(corpus, tmp_path, "--steps", "40")) == 0

    out = tmp_path / "out"
    facts = json.loads((out / "training.json").read_text())
    assert facts["run"]["step"] == 40
    assert facts["run"]["tokens"] == 40 * 32 * 4 * 2
    assert set(facts["held_out"]["perplexity_per_module"]) == set(HELD_OUT)
    assert json.loads(capsys.readouterr().out) == facts["held_out"]
    # Untrained, perplexity is the vocabulary's size; 40 steps learn at least the common bytes.
    assert facts["held_out"]["perplexity"] < 160

    model = huggingface.AutoModelForCausalLM.from_pretrained(out)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.dtype == torch.bfloat16
    tokenizer = huggingface.AutoTokenizer.from_pretrained(out)
    text = "def heappush(heap, item):\n    heap.append(item)\n"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == 0
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert f"{facts['held_out']['perplexity']:.3f}" in (out / "README.md").read_text()


@pytest.mark.slow
def test_a_run_paused_after_every_step_gives_the_weights_of_an_unbroken_run(
    script, corpus, tmp_path, capsys
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert script.main(arguments(corpus, whole, "--steps", "3")) == 0
    for step in (1, 2):
        assert script.main(arguments(corpus, broken, "--steps", "3", "--minutes", "0")) == 0
        assert f"paused at step {step}" in capsys.readouterr().err
    assert not (broken / "out").exists()
    assert script.main(arguments(corpus, broken, "--steps", "3")) == 0

    name = "out/model.safetensors"
    assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_training_loss_equals_the_loss_transformers_computes(script, huggingface):
    plan = script.Plan(**TINY, dtype="float32")
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: weight.detach() + 0.1 * torch.randn(weight.shape, generator=generator)
        for name, weight in script.init_weights(plan).items()
    }
    config = huggingface.LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    model = huggingface.LlamaForCausalLM(config)
    model.load_state_dict(weights, strict=False)
    tokens = torch.randint(320, (3, 33), generator=generator)
    with torch.no_grad():
        logits = model(tokens[:, :-1]).logits
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        assert script.Llama(plan).loss(weights, tokens).item() == pytest.approx(
            expected.item(), rel=1e-5
        )


def test_held_out_modules_exist_and_are_no_copies_of_training_modules():
    from asterope.api import HELD_OUT_MODULES
    from stdlib_corpus import read_corpus

    corpus = read_corpus(STDLIB)
    assert set(corpus.held_out) == set(HELD_OUT_MODULES)
    assert not set(corpus.train) & set(HELD_OUT_MODULES)
    assert corpus.describe()["overlap"] < 0.05


def test_a_checkpoint_of_another_plan_is_refused(script, corpus, tmp_path, capsys):
    script.main(arguments(corpus, tmp_path, "--minutes", "0"))
    assert script.main(arguments(corpus, tmp_path, "--minutes", "0", "--seed", "1")) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'work' / 'checkpoint.safetensors'}: " in error
    assert "another plan" in error
    assert "hint:" in error


def test_a_folder_without_held_out_modules_is_refused(script, corpus, tmp_path, capsys):
    for name in HELD_OUT:
        (corpus / name).unlink()
    assert script.main(arguments(corpus, tmp_path)) == 2
    assert f"{corpus}: 4 modules to train on and 0 to hold out" in capsys.readouterr().err


def test_heads_that_do_not_divide_the_width_are_refused(script, corpus, tmp_path, capsys):
    assert script.main(arguments(corpus, tmp_path, "--hidden-size", "36")) == 2
    assert "hidden size 36, 4 heads" in capsys.readouterr().err
