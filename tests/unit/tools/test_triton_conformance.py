"""Running somebody else's tests: results survive a kill, reasons are found, the page adds up."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[3] / "tools"
PAGE = TOOLS.parent / "docs" / "reference" / "triton_conformance.md"


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


FILE = """\
import os, signal, time
import pytest, torch

def test_passes():
    assert torch.cuda.get_device_capability() == (0, 0)

def test_fails():
    assert {}.get("ttgir") is not None, "asm['ttgir'] is not there"

def test_skips():
    pytest.skip("only for others")

@pytest.mark.xfail
def test_is_expected_to_fail():
    raise ValueError

def test_dies():
    os.kill(os.getpid(), signal.SIGKILL)

def test_sleeps():
    time.sleep(60)

def test_is_left_out():
    raise AssertionError

@pytest.mark.parametrize("i", range(3))
def test_asks_for_cuda(i):
    assert torch.zeros(i, device="cuda").device.type == "cpu"
"""


def suite_of(folder):
    from conformance.suites import Suite

    (folder / "tests").mkdir()
    (folder / "tests" / "test_theirs.py").write_text(FILE)
    (folder / "tests" / "test_broken.py").write_text("import a_package_that_is_not_there\n")
    return Suite(
        name="theirs", title="Theirs", root="tests", tests=("test_*.py",),
        not_run={"test_theirs.py::test_is_left_out": "it is for GPUs"},
    )  # fmt: skip


@pytest.mark.slow
def test_every_test_has_a_result_whatever_it_does_and_none_runs_twice(tmp_path):
    from conformance.page import summarise
    from conformance.run import Options, run_suite

    suite = suite_of(tmp_path)
    options = Options(jobs=1, timeout_s=3)
    files = suite.files(tmp_path)
    assert files == ["test_broken.py", "test_theirs.py"]
    state = tmp_path / "state"
    seen = []

    def run():
        return run_suite(suite, tmp_path, files, state, options, lambda f, _: seen.append(f))

    first = run()
    assert seen == files
    outcomes = {
        name.partition("::")[2]: r["outcome"] for name, r in first["test_theirs.py"].items()
    }
    assert outcomes == {
        "test_passes": "passed", "test_fails": "failed", "test_skips": "skipped",
        "test_is_expected_to_fail": "xfailed", "test_dies": "failed", "test_sleeps": "failed",
        "test_is_left_out": "deselected", "test_asks_for_cuda[0]": "passed",
        "test_asks_for_cuda[1]": "passed", "test_asks_for_cuda[2]": "passed",
    }  # fmt: skip
    reasons = dict(r[:2] for r in summarise(first["test_theirs.py"])["reasons"]["failed"])
    assert reasons == {
        "asserts on the text of a GPU's stage": 1, "the process dies: SIGKILL": 1,
        "takes longer than 3 s": 1,
    }  # fmt: skip
    broken = summarise(first["test_broken.py"])["reasons"]["failed"]
    assert [r[0] for r in broken] == ["needs the Python package a_package_that_is_not_there"]
    (log,) = state.glob("test_theirs*.jsonl")
    lines = log.read_text()
    assert run() == first
    assert log.read_text() == lines, "a test has run again"


def weight_gradient(x):
    weight = torch.ones(4, dtype=x.dtype, requires_grad=True)
    torch.nn.functional.layer_norm(x, (4,), weight).backward(x.flip(0))
    return weight.grad.double()


@pytest.mark.slow
def test_exact_references_are_float64_rounded_once():
    from conformance.exact import ExactTorch

    x = torch.randn(4096, 4, generator=torch.Generator().manual_seed(0)).half()
    true = weight_gradient(x.double())
    with ExactTorch():
        exact = weight_gradient(x)
        y, total = x.clone().mul_(0.1).add_(x, alpha=3), torch.empty(4, dtype=torch.float16)
        torch.sum(x, 0, out=total)
        mean = x.mean(0, dtype=torch.float32)
    assert torch.equal(exact, true.half().double())
    assert not torch.allclose(weight_gradient(x), true, rtol=1e-3), "torch has learnt to add"
    assert torch.equal(y, ((x.double() * 0.1).half().double() + 3 * x.double()).half())
    assert torch.equal(total, x.double().sum(0).half())
    assert mean.dtype == torch.float32
    assert torch.equal(mean, x.double().mean(0).float())


def test_a_kernel_file_is_loaded_without_the_package_around_it(tmp_path, monkeypatch):
    from conformance.kernel_file import load_kernels

    folder = tmp_path / "serving" / "layers"
    folder.mkdir(parents=True)
    (tmp_path / "serving" / "__init__.py").write_text("")
    (tmp_path / "serving" / "sizes.py").write_text("BLOCK = 16\n")
    (folder / "__init__.py").write_text("import a_package_that_is_not_there\n")
    (folder / "moe.py").write_text(
        "from serving import _custom_ops as ops\n"
        "from serving.layers.all_of_it import Config, register\n"
        "from serving.sizes import BLOCK\n"
        "register('moe', ops.moe)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_kernels("serving.layers.moe", first=["serving.sizes"]).BLOCK == 16
    assert "serving.layers" not in sys.modules


def test_a_last_line_cut_off_by_a_kill_is_as_if_it_was_not_there(tmp_path):
    from conformance.run import results_of

    log = tmp_path / "log"
    whole = json.dumps({"test": "a", "outcome": "passed"})
    log.write_text(f"{whole}\n" + json.dumps({"test": "b", "outcome": "passed"})[:20])
    assert list(results_of(log)) == ["a"]
    log.write_text(f"{log.read_text()}\n" + json.dumps({"test": "b", "outcome": "failed"}))
    assert {name: r["outcome"] for name, r in results_of(log).items()} == {
        "a": "passed",
        "b": "failed",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("KeyError: 'ttgir'", "asserts on the text of a GPU's stage"),
        (
            "E   UnsupportedError: a.py:3:4: tt.scan is not supported yet",
            "tt.scan is not supported yet",
        ),
        ("AssertionError: Torch not compiled with CUDA enabled", "asks for a CUDA device"),
        ("Failed: took longer than 120 s", "takes longer than 120 s"),
        ("\nassert 1 == 2\nmore", "unexplained: assert 1 == 2"),
        ("", "unexplained: no message"),
    ],
)
def test_a_failure_is_given_one_line_of_reason(text, reason):
    from conformance.reasons import reason_of

    assert reason_of("test_x.py::test_y", text) == reason


def test_the_page_counts_everything_once_and_keeps_what_is_not_run_again(tmp_path):
    from conformance import page

    results = {
        f"f.py::t{i}": {"outcome": outcome, "message": message, "seconds": 1.0}
        for i, (outcome, message) in enumerate(
            [("passed", ""), ("failed", "a | b < c"), ("skipped", "no GPU"), ("xfailed", "known"),
             ("failed", "a | b < c"), ("deselected", "too long")]
        )
    }  # fmt: skip
    data = {}
    about = {"title": "Theirs", "about": "today", "not_run": {"g.py": "for GPUs"}}
    page.add_files(data, "theirs", about, {"f.py": page.summarise(results)})
    page.add_files(data, "theirs", about, {"h.py": page.summarise({})})
    page.save(tmp_path / "data.json", data)
    assert page.load(tmp_path / "data.json") == data
    text = page.render(data)
    assert "| `f.py` | 2 | 2 | 1 | 1 | 6 |" in text
    assert "| `h.py` | 0 | 0 | 0 | 0 | 0 |" in text
    assert "| **all** | 2 | 2 | 1 | 1 | 6 |" in text
    assert "| unexplained: a \\| b &lt; c | 2 | `f.py::t1` |" in text
    assert "| `g.py` | for GPUs |" in text
    assert "| 1 tests | too long |" in text


def test_the_page_in_the_project_is_what_its_data_says():
    from conformance import page

    if PAGE.exists():
        assert PAGE.read_text() == page.render(page.load(PAGE.with_suffix(".json")))


def test_a_folder_that_is_no_checkout_is_refused(tmp_path, monkeypatch):
    import triton_conformance
    from asterope.errors import ConfigError

    monkeypatch.setattr(triton_conformance, "STATE", tmp_path / "state")
    with pytest.raises(ConfigError, match=r"there is no python/test.*\nhint: .* checkout of Tri"):
        triton_conformance.main(tmp_path)
    with pytest.raises(ConfigError, match=r"--collection: there is no 'mine'"):
        triton_conformance.main(tmp_path, collection="mine")
    assert "conformance" in sys.modules
