"""`import asterope`: the names it offers, none of which costs anything before it is used."""

from __future__ import annotations

import ast as syntax
import subprocess
import sys
from pathlib import Path

import pytest

import asterope
import asterope.api

STUB = Path(asterope.__file__).with_suffix(".pyi")
NAMES = [
    "Assumptions", "AsteropeError", "EstimateOptions", "LanguageModel", "Pricing", "Run",
    "RunOptions", "Timeline", "__version__", "chips", "cost", "estimate", "formats",
    "from_config", "from_trained", "llm", "load", "quant", "run", "shipped_model", "simulate",
    "train", "twin",
]  # fmt: skip


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_facade_offers_these_names_and_no_others():
    assert asterope.__all__ == sorted(NAMES) == dir(asterope)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there(name):
    assert getattr(asterope, name) is not None


def test_facade_and_its_types_agree():
    tree = syntax.parse(STUB.read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in tree.body if isinstance(node, syntax.ImportFrom)
        for alias in node.names
    }  # fmt: skip
    assert sorted(imported | {"__version__"}) == asterope.__all__


def test_each_typed_name_is_what_is_imported():
    tree = syntax.parse(STUB.read_text(encoding="utf-8"))
    for node in tree.body:
        if not isinstance(node, syntax.ImportFrom) or node.module == "asterope":
            continue
        package = __import__(node.module, fromlist=["_"])
        for alias in node.names:
            name = alias.asname or alias.name
            assert getattr(asterope, name) is getattr(package, alias.name)


def test_importing_the_facade_imports_next_to_nothing():
    done = python(
        "import sys, time; before = set(sys.modules); start = time.perf_counter()\n"
        "import asterope\n"
        "print(time.perf_counter() - start)\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    took_s, loaded = done.stdout.splitlines()
    assert float(took_s) < 0.5
    assert not {"torch", "triton", "numpy", "numba", "typer"} & set(loaded.split())


def test_what_needs_no_torch_loads_none():
    done = python(
        "import sys, asterope\n"
        "asterope.chips.get('maia200'), asterope.llm.published_names(), asterope.cost, \n"
        "asterope.Pricing(), asterope.Assumptions(pue=1.2), asterope.AsteropeError\n"
        "print('torch' in sys.modules, 'triton' in sys.modules)"
    )
    assert done.stdout == "False False\n", done.stderr


def test_a_name_that_needs_torch_says_how_to_install_it():
    done = python("import sys; sys.modules['torch'] = None; import asterope; asterope.load")
    last = done.stderr.splitlines()[-1]
    assert last == ("ModuleNotFoundError: asterope.load needs torch: pip install 'asterope[torch]'")


@pytest.mark.parametrize("module", [asterope, asterope.api], ids=lambda m: m.__name__)
def test_a_name_that_does_not_exist_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'lod'"):
        module.lod  # noqa: B018 - it is the access that fails


def test_every_name_of_the_api_is_there():
    for name in asterope.api.__all__:
        assert getattr(asterope.api, name) is not None
