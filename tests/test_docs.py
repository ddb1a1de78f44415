"""What the documents show is run; what they name exists; the API pages are those of the docstrings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page, says", [
    ("tutorial.md", ["embedded/game24@value-v1-", "judgements"]),
    ("models.md", ["True\n", " tokens", "True True", "| value | hosted_vllm/game24 |"]),
    ("search.md", ["LiteSearch", "the task's budget of 40 calls is spent", "replies kept, [] possibly paid"])])
def test_the_tutorials_run(tmp_path, page, says):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)
    assert len(blocks) >= 5
    code = "\n".join(blocks)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={**__import__("os").environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert "never retrieved" not in done.stderr and all(text in done.stdout for text in says)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md", "docs/search.md", "docs/experiments.md",
                                  "docs/models.md", "docs/finetune.md"])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{page} links to {target}"


def test_api_pages_are_current():
    done = subprocess.run([sys.executable, "docs/build_api.py", "--check"], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_names_the_commands_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    for command in set(re.findall(r"`make ([a-z-]+)", (ROOT / "README.md").read_text())):
        assert re.search(rf"^{command}:", makefile, re.M), command
