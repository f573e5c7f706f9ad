"""Code in the pages runs, links lead somewhere, and generated pages are what the code says."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md"),
]  # fmt: skip
SLOW = {
    "docs/how-to/qat.md:0", "docs/how-to/qat.md:1",  # they train
    "docs/how-to/mixed_precision.md:0", "README.md:0",
}  # fmt: skip
BLOCKS = [
    pytest.param(code, id=name, marks=[pytest.mark.slow] * (name in SLOW))
    for page in PAGES
    if page.name == "README.md" or page.parent in (ROOT / "docs", ROOT / "docs" / "how-to")
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    )
    for name in [f"{page.relative_to(ROOT)}:{number}"]
]


@pytest.mark.parametrize("code", BLOCKS)
def test_code_in_a_page_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "block.py"
    script.write_text(code)
    runpy.run_path(str(script), run_name="__main__")


def test_there_is_code_to_run():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```|`[^`]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_generated_pages_are_up_to_date():
    script = str(ROOT / "tools" / "generate_reference.py")
    command = [sys.executable, script, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
